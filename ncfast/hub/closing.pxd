"""What is done once for each client's flow that is over."""

from ncfast.core.flow cimport Flow
from ncfast.hub.opens cimport Opens
from ncfast.observe.log.access cimport AccessLog


cdef class Closing:
    cdef object _clock
    cdef object _stats
    cdef Opens _opens
    cdef AccessLog _log

    cpdef over(self, Flow flow, reason)
