"""The socket end of a flow."""

from libc.stdint cimport uint8_t

from ncfast.core.budget cimport Share
from ncfast.core.context cimport FlowContext
from ncfast.core.ends cimport Sink
from ncfast.core.flow cimport Flow
from ncfast.net.stream cimport Stream


cdef class SocketEnd(Sink):
    cdef readonly FlowContext ctx
    cdef readonly Flow flow
    cdef Share share                 # of the flow, and still when that is over
    cdef readonly Stream transport
    cdef object _owner
    cdef object _inherits            # the SocketState that it begins with, until it is made
    cdef object _call_later
    cdef object _timer
    cdef object _view
    cdef uint8_t* _view_at
    cdef Py_ssize_t _view_size
    cdef int _reset_code
    cdef int _lost_code
    cdef bint _blocked
    cdef bint _eof_in
    cdef bint _eof_out
    cdef double _waited
    cdef readonly Py_ssize_t left    # bytes that wait for the socket although the flow is over
    cdef bint _resetting
    cdef bint _lost
    cdef bint _released

    cpdef carry(self, Flow flow)
    cpdef connection_made(self, Stream transport)
    cpdef eof_received(self)
    cpdef connection_lost(self, exc)
    cdef int _count(self, Py_ssize_t left) except -1
    cdef Py_ssize_t reserve(self, uint8_t** at) except -1
    cdef int received(self, Py_ssize_t n) except -1
    cdef int _go_on(self, state) except -1
    cdef int _read_rest(self, Flow flow) except -1
    cdef bint has_no_room(self) except -1


cdef SocketEnd end_of(FlowContext ctx, owner, call_later, int reset_code, int lost_code)
