"""Token buckets by key, for handshakes and opens per source address."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 4096  # sources remembered; the one seen longest ago makes room


class Throttle:
    """Admits `rate` events a second for each key, in bursts of twice as many; a rate of 0 admits all."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self.rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, key: str) -> bool:
        """Whether an event of `key` may happen now."""
        if not self.rate:
            return True
        now = self._clock()
        burst = max(1.0, 2 * self.rate)
        tokens, at = self._buckets.pop(key, (burst, now))
        tokens = min(burst, tokens + (now - at) * self.rate)
        admitted = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if admitted else tokens, now)
        if len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)
        return admitted
