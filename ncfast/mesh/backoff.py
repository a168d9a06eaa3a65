"""Pauses between attempts to reach a peer, and the breaker that turns them into single probes. Pure logic."""

from __future__ import annotations

import random

BASE = 0.1  # seconds; the first pause is drawn below it, so that a lost link is back at once
TRIP = 8  # failures in a row after which the breaker opens; with BASE some 10 s without a peer
STEADY = 5.0  # seconds that a link must have stood to count as a success: one that flaps backs off too


class Backoff:
    """Full jitter below a bound that doubles (Brooker, "Exponential Backoff and Jitter"), up to `maximum` seconds.

    After TRIP failures the breaker is open: attempts are single probes, half the maximum apart at least.
    """

    def __init__(self, rng: random.Random, maximum: float) -> None:
        self._rng = rng
        self.maximum = maximum
        self.failures = 0
        self.probing = False

    @property
    def breaker(self) -> str:
        """closed, open, or half_open while a probe is under way."""
        if self.failures < TRIP:
            return "closed"
        return "half_open" if self.probing else "open"

    def attempt(self) -> None:
        """An attempt begins."""
        self.probing = True

    def failed(self) -> float:
        """The attempt failed, or its link did not last. Returns the pause before the next, in seconds."""
        self.probing = False
        bound = min(self.maximum, BASE * 2.0 ** min(self.failures, 32))
        self.failures += 1
        if self.failures >= TRIP:
            return self._rng.uniform(self.maximum / 2, self.maximum)
        return self._rng.uniform(0, bound)

    def succeeded(self) -> None:
        """The peer is known to be well."""
        self.probing = False
        self.failures = 0
