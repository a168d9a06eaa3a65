"""Which agent a client's flow goes to."""

from libc.stdint cimport uint64_t

from ncfast.core.flow cimport Flow
from ncfast.hub.crowd cimport Crowd
from ncfast.hub.info cimport ClientInfo
from ncfast.hub.opens cimport Opens
from ncfast.hub.pending cimport PendingOpens
from ncfast.hub.serving cimport Serving
from ncfast.net.socket cimport SocketEnd


cdef class Choice:
    cdef readonly object _ground
    cdef readonly object _sessions
    cdef readonly object _ways
    cdef readonly PendingOpens _pending
    cdef readonly Opens _steering
    cdef readonly object hold        # clients that wait
    cdef public uint64_t flow_number # of the last one here; a successor's begin above those of its predecessor
    cdef readonly object _opened     # one for all flows
    cdef bytes _secrets              # drawn ahead
    cdef Py_ssize_t _next_secret

    cpdef client_ready(self, SocketEnd end, ClientInfo info)
    cdef bytes draw(self)
    cdef bytes next_cid(self)
    cpdef _enter(self, Flow flow)
    cpdef bint dispatch(self, Flow flow) except -1
    cdef object least_loaded(self, ClientInfo info)
    cdef list willing(self, list sessions, ClientInfo info)
    cpdef opened(self, Flow flow)
