"""Counts of observed seconds per bucket."""


cdef enum:
    MOST = 32                        # buckets


cdef class Histogram:
    cdef readonly tuple bounds
    cdef double _bounds[MOST]
    cdef public list counts          # the last one is of what is beyond all bounds
    cdef public double sum

    cpdef observe(self, double seconds)
