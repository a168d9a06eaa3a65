"""M_OPEN as it comes on a tunnel."""

from ncfast.core.flow cimport Flow
from ncfast.core.link cimport Link


cdef class Opens:
    cdef readonly object _ground
    cdef readonly object _services
    cdef public Link link            # set by the dialer before any frame can come
    cdef public bint owns            # the hub has granted an epoch: with the state

    cpdef bint _may(self) except -1
    cpdef bint _left_behind(self, Flow flow) except -1
    cdef tuple read(self, bytes body)
    cpdef _flow(self, bytes cid)
