"""Flows' connections to a target, from M_OPEN on."""

from libc.stdint cimport uint64_t

from ncfast.core.budget cimport Share
from ncfast.core.context cimport FlowContext
from ncfast.core.ends cimport Path
from ncfast.core.flow cimport Flow


cdef class Connections:
    cdef readonly object ground
    cdef object _net
    cdef FlowContext _context
    cdef readonly Share share
    cdef readonly dict young         # whose transports have no keepalive yet, the oldest first: {Connection: transport}
    cdef public int dials            # under way
    cdef public bint reached         # by the last dial, and there was one since the last check
    # what each flow is asked for, out of the configuration's model, for looking into one is slow
    cdef str _host
    cdef int _port
    cdef double _timeout
    cdef int _most
    cdef bint _headed                # a PROXY header goes first
    cdef int _notsent_lowat

    cpdef open(self, Path link, bytes cid, uint64_t limit, tuple request)


cdef class Connection:
    cdef Connections _target
    cdef Flow _flow
    cdef bytes _header
    cdef object _dial                # while it is under way

    cdef int dial(self) except -1
    cdef int over(self) except -1
