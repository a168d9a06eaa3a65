"""A circuit breaker: when to stop asking somebody who does not answer, and when to try again."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

from ncfast.net.backoff import Backoff

FIRST_PAUSE = 0.1  # seconds, doubled with each failure in a row
# seconds, the bound of that: a registry that is back is noticed within a second or so; hubs are few, a probe is cheap
LONGEST_PAUSE = 0.8


class BreakerState(Enum):
    CLOSED = "closed"  # calls pass
    OPEN = "open"  # calls are refused at once, until `probe_at`
    HALF_OPEN = "half_open"  # one call is on its way to see


class Breaker:
    """Opens with the first failure, for that is a call and its retry; closes with the first success.

    The pause between two probes is drawn from its upper half, so that several hubs do not knock together.
    """

    def __init__(self, clock: Callable[[], float], rng: random.Random) -> None:
        self.state = BreakerState.CLOSED
        self.probe_at = 0.0  # when the next probe is due, if open
        self.opened_at = 0.0  # when the first failure in a row came, if not closed
        self._clock = clock
        self._pauses = Backoff(rng, FIRST_PAUSE, LONGEST_PAUSE, floor=0.5)

    @property
    def closed(self) -> bool:
        return self.state is BreakerState.CLOSED

    def failed(self) -> None:
        now = self._clock()
        if self.closed:
            self.opened_at = now
        self.state = BreakerState.OPEN
        self.probe_at = now + self._pauses.next()

    def probe(self) -> bool:
        """Whether the caller may try now: one at a time, and not before `probe_at`. It then says `failed` or
        `succeeded`."""
        if self.state is not BreakerState.OPEN or self._clock() < self.probe_at:
            return False
        self.state = BreakerState.HALF_OPEN
        return True

    def succeeded(self) -> None:
        self.state = BreakerState.CLOSED
        self._pauses.reset()
