"""The token bucket."""


cdef class Bucket:
    cdef double _tokens
    cdef double _at              # the last call

    cpdef bint take(self, double rate, double burst, double now) noexcept
