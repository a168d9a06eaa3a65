"""The breaker of a route to a peer: pauses between attempts, then single probes. Pure logic."""

from __future__ import annotations

import random

from ncfast.net.backoff import Backoff

BASE = 0.1  # seconds; the first pause is drawn below it, so that a lost link is back at once
TRIP = 8  # failures in a row after which the breaker opens; with BASE some 10 s without a peer
STEADY = 5.0  # seconds that a link must have stood to count as a success: one that flaps backs off too


class Breaker:
    """Full jitter below a bound that doubles, up to `maximum` seconds.

    After TRIP failures the breaker is open: attempts are single probes, half the maximum apart at least.
    """

    def __init__(self, rng: random.Random, maximum: float) -> None:
        self._rng = rng
        self._pauses = Backoff(rng, BASE, maximum)
        self.failures = 0
        self.probing = False

    @property
    def state(self) -> str:
        """closed, open, or half_open while a probe is under way."""
        if self.failures < TRIP:
            return "closed"
        return "half_open" if self.probing else "open"

    def bound(self, maximum: float) -> None:
        """The longest pause from now on, in seconds."""
        self._pauses.most = maximum

    def attempt(self) -> None:
        """An attempt begins."""
        self.probing = True

    def failed(self) -> float:
        """The attempt failed, or its link did not last. Returns the pause before the next, in seconds."""
        self.probing = False
        self.failures += 1
        if self.failures >= TRIP:
            return self._rng.uniform(self._pauses.most / 2, self._pauses.most)
        return self._pauses.next()

    def succeeded(self) -> None:
        """The peer is known to be well."""
        self.probing = False
        self.failures = 0
        self._pauses.reset()
