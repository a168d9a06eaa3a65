"""Pauses between attempts that fail, so that what is down is not knocked over again when it gets up."""

from __future__ import annotations

import math
import random


class Backoff:
    """Draws seconds below a bound that doubles from `first` to `most` (Brooker, "Exponential Backoff and Jitter").

    `floor` is the share of the bound that every pause has at least: 0 is his full jitter, 0.5 his equal jitter.
    """

    def __init__(self, rng: random.Random, first: float, most: float, floor: float = 0.0) -> None:
        self._rng = rng
        self._first = first
        self._bound = first
        self._floor = floor
        self.most = most
        self.least = 0.0  # what the last answer asked for; counts once

    def next(self) -> float:
        """The pause before the next attempt."""
        pause = max(self.least, min(self._bound, self.most) * self._rng.uniform(self._floor, 1.0))
        self._bound *= 2.0  # to infinity, in the end
        self.least = 0.0
        return pause

    def begin_at(self, first: float) -> None:
        """From now on no bound is below `first`, the next one, too."""
        self._first = first
        self._bound = max(self._bound, first)

    def reset(self, most: float = math.inf) -> None:
        """An attempt was well: begin anew, and below `most`."""
        self._bound = min(self._first, most)
