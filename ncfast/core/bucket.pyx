"""The token bucket: so many events a second, and so many at once."""


cdef class Bucket:
    """Begins full. The clock is the caller's, in seconds; one that runs back stands still."""

    def __cinit__(self, double burst, double now):
        self._tokens = burst
        self._at = now

    cpdef bint take(self, double rate, double burst, double now) noexcept:
        """Whether another event may happen; `rate` tokens a second have come since the last call, up to `burst`."""
        cdef double tokens = self._tokens
        cdef bint taken
        if now > self._at:
            tokens += (now - self._at) * rate
        if tokens > burst:
            tokens = burst
        self._at = now
        taken = tokens >= 1.0
        self._tokens = tokens - 1.0 if taken else tokens
        return taken
