"""What is done once for each flow that is over."""

from ncfast.core.flow cimport Flow
from ncfast.observe.log.access cimport AccessLog


cdef class Closing:
    cdef object _clock
    cdef object _counts
    cdef AccessLog _log

    cpdef over(self, Flow flow, reason)
