"""Opens of our clients' flows."""

from ncfast.core.flow cimport Flow
from ncfast.hub.info cimport ClientInfo
from ncfast.hub.pending cimport PendingOpens


cdef class Opens:
    cdef readonly object _ground
    cdef readonly PendingOpens _pending
    cdef readonly dict _flows_of     # by agent: {flow: None}
    cdef readonly dict _waiting      # by agent and connector, for their turn to be opened again, in order: {flow: None}

    cpdef open(self, Flow flow, str agent, str instance, way, epoch, Py_ssize_t credit=*)
    cpdef send_open(self, Flow flow, way, epoch, Py_ssize_t credit=*)
    cpdef use(self, Flow flow, way, epoch)
    cdef bytes said(self, Flow flow, ClientInfo info, way, str agent, str tenant)
    cpdef answered(self, Flow flow)
    cpdef closed(self, Flow flow)
    cpdef _leave(self, Flow flow)
