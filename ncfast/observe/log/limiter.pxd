"""Token buckets over the names of log events."""

from ncfast.core.bucket cimport Bucket


cdef class _Event:
    cdef Bucket bucket
    cdef double rate
    cdef double burst
    cdef int held_back               # since the last line


cdef class EventLimiter:
    cdef public object clock
    cdef readonly long suppressed    # of all events, since the start
    cdef readonly dict _events

    cpdef admit(self, str event)
    cdef _Event _new(self, str event, double now)
