"""WebSocket messages as a carrier."""

from libc.stdint cimport uint8_t, uint64_t

from ncfast._link cimport Carrier, Link, Piece


cdef class ReceiveBuffer:
    """What all sockets of one event loop are read into, one after the other."""
    cdef uint8_t* data
    cdef readonly Py_ssize_t size
    cdef readonly object view


cdef class WebSocketCarrier(Carrier):
    cdef readonly object ws
    cdef readonly object transport
    cdef readonly Link link
    cdef ReceiveBuffer _buffer
    cdef object _call_later
    cdef object _entropy
    cdef bint _client
    cdef bint _ended
    cdef bint _broken
    cdef uint64_t _max_message
    # a frame's header, then how far its payload has come
    cdef uint8_t _head[14]
    cdef int _have
    cdef int _need
    cdef uint64_t _left
    cdef uint8_t _mask[4]
    cdef int _turn
    cdef bint _in_message
    cdef uint64_t _message
    cdef int _fragments
    cdef bytearray _control
    # masks for what we send
    cdef bytes _keys
    cdef Py_ssize_t _next_key

    cdef int _receive(self, uint8_t* p, Py_ssize_t n) except -1
    cdef int _header(self) except -1
    cdef int _refuse(self, reason, str detail) except -1
    cdef int _control_frame(self) except -1
