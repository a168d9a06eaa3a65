"""Every alert that is shipped, fired by a real fault: real hubs, agents and Redis, a real Prometheus that scrapes them,
and the runbook's own commands at the hub that the alert names. `python -m tests.alerts --report FILE`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # `support` is found from there, as under pytest
