"""The bare byte stream as a carrier."""

from ncfast._link cimport Carrier, Link
from ncfast._websocket cimport ReceiveBuffer


cdef class RawCarrier(Carrier):
    cdef readonly object transport
    cdef readonly Link link
    cdef ReceiveBuffer _buffer
    cdef object _call_later
    cdef bint _ended
    cdef bint _broken

    cdef int _receive(self, Py_ssize_t n) except -1
