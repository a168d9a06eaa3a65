"""M_OPEN as it comes on a tunnel."""

from ncfast.core.link cimport Link


cdef class Opens:
    cdef readonly object _ground
    cdef readonly object _services
    cdef public Link link            # set by the dialer before any frame can come

    cdef tuple read(self, bytes body)
    cpdef _flow(self, bytes cid)
