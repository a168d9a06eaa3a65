"""Whether a new flow may be opened on a tunnel."""


cdef class Serving:
    cdef readonly object _ground
    cdef readonly object _locks
    cdef public object identity
    cdef readonly str key
    cdef public str instance         # of the agent's process; "" before HELLO
    cdef public object epoch
    cdef public object connectors    # announced and within the token's scope
    cdef public bint owns            # the agent is this hub's, by this tunnel: with the state
    cdef public bint draining        # whatever the state: the agent has said GOAWAY
    cdef public bint packed_open     # reads that form of M_OPEN
    cdef public object link          # set by the edge before any frame can come

    cpdef bint serves(self, tenant, str connector) except -1
