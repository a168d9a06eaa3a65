"""The token bucket: so many events a second, and so many at once."""

class Bucket:
    """Begins full. The clock is the caller's, in seconds; one that runs back stands still."""

    def __init__(self, burst: float, now: float) -> None: ...
    def take(self, rate: float, burst: float, now: float) -> bool:
        """Whether another event may happen; `rate` tokens a second have come since the last call, up to `burst`."""
