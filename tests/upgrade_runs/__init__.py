"""Hubs and agents upgraded again and again under the clients of real services: not a byte, a transaction or a connect
may be lost. `python -m tests.upgrade_runs --report FILE`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # `support` is found from there, as under pytest
