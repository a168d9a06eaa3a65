"""Counts of observed seconds per bucket."""

class Histogram:
    """A bucket's bound is inclusive, as Prometheus' ``le`` is."""

    bounds: tuple[float, ...]
    counts: list[int]  # the last one is of what is beyond all bounds
    sum: float

    def __init__(self, buckets: tuple[float, ...]) -> None: ...
    def copy(self) -> Histogram:
        """As it is now."""

    def __add__(self, other: Histogram) -> Histogram:
        """What both have observed; their buckets are the same."""

    def observe(self, seconds: float) -> None: ...
    def cumulative(self) -> list[tuple[str, int]]:
        """``(le, observations at or below it)`` for every bucket, ending with ``+Inf``."""
