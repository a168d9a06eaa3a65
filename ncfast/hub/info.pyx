"""What the hub knows of a client's flow beside its bytes: who the client is, and which way its flow takes.

Compiled because each client has one, which is looked into some fifty times on the way of its flow.
"""

from libc.math cimport INFINITY

cdef frozenset NOBODY = frozenset()


def names_of(listener not None):
    """Its own, and for what its clients come. Looking into a model is slow, and a listener has many of them."""
    return listener.name, (listener.tenant, listener.connector)


cdef ClientInfo info_of(listener, timeouts, counts, Share share, tuple names):
    """Of a client of which nothing else is known yet; `names` is what `names_of` says of the listener."""
    cdef ClientInfo info = ClientInfo.__new__(ClientInfo)
    info.begin(listener, timeouts, counts, share, names)
    return info


cdef class ClientInfo:
    """The listener's settings are those with which the client came in."""

    def __cinit__(self):
        self.agent_key = self.instance = self.owner = ""
        self.epoch = 0
        self.lost_at = -1.0
        self.sought_at = -INFINITY
        self.tried = self.refused = NOBODY

    def __init__(self, listener not None, timeouts, str host not None, int port, double now, counts, Share share=None):
        self.begin(listener, timeouts, counts, share, names_of(listener))
        self.ends = (host, port, "", 0)
        self.accepted_at = now

    cdef int begin(self, listener, timeouts, counts, Share share, tuple names) except -1:
        self.listener = listener
        self.timeouts = timeouts
        self.counts = counts
        self.share = share
        self.name, self.key = names
        return 0

    @property
    def client(self):
        """Who it is: host:port."""
        host, port, _, _ = self.ends
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def connector(self):
        return self.key[1]

    @property
    def path(self):
        """Where the agent is, or last was: what logs and metrics call the flow's path."""
        return self.way()

    cdef str way(self):
        return "mesh" if self.remote else "local"

    def flow_opened(self, flow):
        """M_OPEN_ACK has come."""
        self.on_opened(flow)
