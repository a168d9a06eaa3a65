"""What the hub knows of a client's flow beside its bytes."""

from ncfast.core.budget cimport Share


cdef class ClientInfo:
    cdef readonly object listener    # its settings, as they were when the client came in
    cdef readonly object timeouts
    cdef readonly object counts      # the listener's
    cdef readonly Share share        # of the memory; None: of what no listener answers for
    cdef readonly str name           # the listener's
    cdef readonly tuple key          # tenant, connector
    cdef public tuple ends           # the client's address and port, then our own end of that connection
    cdef public double accepted_at
    cdef public object on_opened     # is called with the flow when M_OPEN_ACK has come
    cdef public object place         # the client's, at its listener
    cdef public str agent_key
    cdef public str instance         # of the agent's process
    cdef public object session       # the tunnel by which it goes, or
    cdef public object peer          # the link to the owner
    cdef public str owner            # the replica that owns, or last owned, the agent
    cdef public bint remote          # that is another hub
    cdef public object epoch         # the highest under which the flow was carried
    cdef public bint counted         # among the opens without an answer
    cdef public int sends            # of M_OPEN to this agent
    cdef public double hold_until    # the end of its time in the queue, if it ever came there
    cdef public int resumes
    cdef public int handovers        # from one process of this hub to the next
    cdef public double lost_at       # passed by another process, it has had no way since then; -1: it has one
    cdef public double sought_at     # when we last asked an owner for it
    cdef public frozenset tried      # agents that have refused it
    cdef public int refusals         # by hubs that did not own the agent
    cdef public frozenset refused    # agent and epoch under which a hub did not own it

    cdef int begin(self, listener, timeouts, counts, Share share, tuple names) except -1
    cdef str way(self)


cdef ClientInfo info_of(listener, timeouts, counts, Share share, tuple names)
