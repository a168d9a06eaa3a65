"""The bare byte stream as a carrier."""

from ncfast._carrier cimport TransportCarrier


cdef class RawCarrier(TransportCarrier):
    pass
