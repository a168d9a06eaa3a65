"""What an agent counts: plain integers, read when somebody asks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ncfast.observe.stats import Tally

ROLES = ("owner", "standby")  # what a tunnel is dialled for


@dataclass(frozen=True, slots=True)
class Failure:
    """A dial that came to nothing."""

    hub: str  # its URL
    role: str
    reason: str
    at: float  # monotonic seconds


@dataclass(slots=True, eq=False)
class Counts:
    """Counters since the start."""

    closed: Counter[str] = field(default_factory=Tally)  # flows, by reason
    granted: int = 0  # claims: tunnels that came to own the agent
    failed: Counter[str] = field(default_factory=Counter)  # dials of hubs, by role
    handovers: Counter[str] = field(default_factory=Counter)  # by result: done and cut here, failed at a predecessor
    last_failure: Failure | None = None

    def dial_failed(self, failure: Failure) -> None:
        self.failed[failure.role] += 1
        self.last_failure = failure
