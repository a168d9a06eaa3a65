"""The bare byte stream as a carrier."""

from ncfast.net.carrier cimport TransportCarrier


cdef class RawCarrier(TransportCarrier):
    pass
