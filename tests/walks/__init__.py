"""A new user's walks in a fresh clone, by the commands of README and docs: to the first LDAP search, to three hubs with
mutual TLS, and on call from faults to their pages. `python -m tests.walks --report FILE`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # `support` is found from there, as under pytest
