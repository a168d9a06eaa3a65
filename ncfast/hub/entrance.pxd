"""Clients that come in at a listener."""

from ncfast.core.budget cimport Share
from ncfast.core.context cimport FlowContext
from ncfast.net.socket cimport SocketEnd


cdef class Entrance:
    cdef readonly object ground
    cdef readonly object net
    cdef readonly FlowContext _context
    cdef public object _opens        # bounds the clients of each source address
    cdef readonly object on_client
    cdef readonly object counts
    cdef readonly Share share
    cdef public long active
    cdef readonly dict per_source    # clients by source
    cdef public tuple own            # where all clients come in, if that is one address
    # settings, which a reload replaces: what each client is asked for, out of the model, for looking into one is slow
    cdef public object config
    cdef public object timeouts
    cdef public tuple names
    cdef public object _allow, _deny, _balancers
    cdef public bint _headers        # balancers bring a PROXY header
    cdef public bint _defers         # nothing is opened before a client speaks
    cdef public long _most
    cdef public long _most_per_source

    cpdef _enters(self)
    cpdef client(self, str host, int port)
    cpdef str refusal(self, str host)
    cpdef str no_room(self, str source)


cdef class Place:
    cdef readonly Entrance listener
    cdef readonly object config
    cdef readonly object timeouts
    cdef readonly tuple names
    cdef readonly str host
    cdef readonly int port
    cdef readonly str source         # what limits by source count it as

    cpdef SocketEnd end(self)
    cpdef leave(self)
