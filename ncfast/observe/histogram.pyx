"""Counts of observed seconds per bucket.

Compiled because each flow is observed twice.
"""


cdef class Histogram:
    """A bucket's bound is inclusive, as Prometheus' ``le`` is."""

    def __init__(self, tuple buckets not None):
        cdef Py_ssize_t i
        if len(buckets) > MOST:
            raise ValueError(f"a histogram has {MOST} buckets at most")
        self.bounds = buckets
        for i in range(len(buckets)):
            self._bounds[i] = buckets[i]
        self.counts = [0] * (len(buckets) + 1)

    def copy(self):
        """As it is now."""
        return self + Histogram(self.bounds)

    def __add__(self, Histogram other not None):
        """What both have observed; their buckets are the same."""
        total = Histogram(self.bounds)
        total.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        total.sum = self.sum + other.sum
        return total

    cpdef observe(self, double seconds):
        cdef Py_ssize_t i = 0, most = len(self.bounds)
        while i < most and self._bounds[i] < seconds:
            i += 1
        self.counts[i] += 1
        self.sum += seconds

    def cumulative(self):
        """``(le, observations at or below it)`` for every bucket, ending with ``+Inf``."""
        buckets = []
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((bound, total))
        return buckets
