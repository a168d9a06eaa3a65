"""WebSocket messages as a carrier."""

from libc.stdint cimport uint8_t, uint64_t

from ncfast.net.carrier cimport TransportCarrier


cdef class WebSocketCarrier(TransportCarrier):
    cdef readonly object ws
    cdef object _entropy
    cdef bint _client
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
    cdef bytearray _control
    # masks for what we send
    cdef bytes _keys
    cdef Py_ssize_t _next_key

    cdef int _header(self) except -1
    cdef int _refuse(self, reason, str detail) except -1
    cdef int _control_frame(self) except -1
