"""A cluster under real clients and faults for as long as wanted: what is lost must have been announced, what is used
must stay flat, and what is counted must add up. `python -m tests.soak --minutes 60 --report FILE`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # `support` is found from there, as under pytest
