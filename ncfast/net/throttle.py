"""A token bucket for each key, for handshakes and opens per source address."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ncfast.core.bucket import Bucket

MAX_KEYS = 4096  # sources remembered; the one seen longest ago makes room


class Throttle:
    """Admits `rate` events a second for each key, in bursts of twice as many; a rate of 0 admits all."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self.rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def admit(self, key: str) -> bool:
        """Whether an event of `key` may happen now."""
        if not self.rate:
            return True
        now = self._clock()
        burst = max(1.0, 2 * self.rate)
        bucket = self._buckets.pop(key, None) or Bucket(burst, now)
        self._buckets[key] = bucket  # at the end
        if len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)
        return bucket.take(self.rate, burst, now)
