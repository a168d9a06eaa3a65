"""The token bucket: so many events a second, and so many at once."""

from __future__ import annotations


class Bucket:
    """Begins full. The clock is the caller's, in seconds; one that runs back stands still."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, burst: float, now: float) -> None:
        self._tokens = burst
        self._at = now

    def take(self, rate: float, burst: float, now: float) -> bool:
        """Whether another event may happen; `rate` tokens a second have come since the last call, up to `burst`."""
        tokens = self._tokens
        if now > self._at:
            tokens += (now - self._at) * rate
        if tokens > burst:
            tokens = burst
        self._at = now
        taken = tokens >= 1.0
        self._tokens = tokens - 1.0 if taken else tokens
        return taken
