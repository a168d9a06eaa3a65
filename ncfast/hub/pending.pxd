"""Opens without an answer."""


cdef class PendingOpens:
    cdef public int most
    cdef readonly dict _total        # by agent
    cdef readonly dict _count        # by agent and connector

    cpdef bint full(self, str agent, str connector) except -1
    cpdef begin(self, str agent, str connector)
    cpdef end(self, str agent, str connector)
