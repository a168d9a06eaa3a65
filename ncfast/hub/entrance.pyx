"""Clients that come in at a listener: whether one may, what is counted of it, its place, its flow's socket end.

Compiled because each client comes through here. `ncfast.hub.listener` adds the port itself, and clients that have to
say something before they get a flow.
"""

from ncfast.core.budget cimport Share
from ncfast.hub.info cimport ClientInfo, info_of
from ncfast.net.socket cimport SocketEnd, end_of

from ncfast.core.errors import Reason
from ncfast.net.newcomers import source_of

cdef int CLIENT_RESET = Reason.CLIENT_RESET
cdef int CLIENT_LOST = Reason.CLIENT_LOST


cdef class Entrance:
    """Open flows keep the settings that they came in with."""

    def __init__(self, ground not None, opens not None, on_client not None, Share share not None, counts not None):
        self.ground = ground
        self.net = ground.net
        self._context = ground.context
        self._opens = opens
        self.on_client = on_client
        self.share = share
        self.counts = counts
        self.per_source = {}

    def _on_socket(self, sock, peer):
        """A connection was accepted."""
        cdef str host = peer[0]
        cdef bint proxied = self._headers and host in self._balancers
        if self.active >= self._most:
            return self.shed("listener_cap", sock)
        if not proxied and (reason := self.refusal(host)) is not None:
            return self.shed(reason, sock)
        self._enters()
        self._context.cork()
        self.net.adopt_end(sock, self._header_of(host, peer[1]) if proxied else self.client(host, peer[1]))

    cpdef _enters(self):
        self.active += 1
        self.net.opened()

    cpdef client(self, str host, int port):
        """What a client that is let in is at first."""
        cdef Place place = Place(self, host, port)
        return self._silent(place) if self._defers else place.end()

    cpdef str refusal(self, str host):
        """Why a client from `host` may not come in now, or None. Behind a balancer `host` is whom its header names."""
        cdef str source
        if (self._deny is not None and host in self._deny) or (self._allow is not None and host not in self._allow):
            return "acl"
        source = host if ":" not in host else source_of(host)
        if self._most_per_source and <long>self.per_source.get(source, 0) >= self._most_per_source:
            return "source_cap"
        return None if self._defers else self.no_room(source)

    cpdef str no_room(self, str source):
        """Why there can be no flow for `source` now, or None."""
        if len(self._context.flows) >= <Py_ssize_t>self.ground.max_flows:
            return "flow_cap"
        if self.share.is_pressed():
            return "memory"
        if not self._opens.admit(source):
            return "rate"
        return None

    # what is not usual

    def shed(self, reason, sock=None):
        """A client may not come in."""
        raise NotImplementedError

    def _header_of(self, host, port):
        """What a balancer's connection is, until its PROXY header is complete."""
        raise NotImplementedError

    def _silent(self, place):
        """What a client is that has to speak first."""
        raise NotImplementedError


cdef class Place:
    """A client's at its listener; owner of its socket. The settings are those with which the client came."""

    def __init__(self, Entrance listener not None, str host not None, int port):
        self.listener = listener
        self.config = listener.config
        self.timeouts = listener.timeouts
        self.names = listener.names
        self.host = host
        self.port = port
        self.source = host if ":" not in host else source_of(host)
        listener.per_source[self.source] = <long>listener.per_source.get(self.source, 0) + 1

    cpdef SocketEnd end(self):
        """The socket end of its flow."""
        return end_of(self.listener._context, self, self.listener.net.call_later, CLIENT_RESET, CLIENT_LOST)

    def socket_ready(self, SocketEnd end not None):
        cdef Entrance listener = self.listener
        cdef ClientInfo info = info_of(self.config, self.timeouts, listener.counts, listener.share, self.names)
        info.accepted_at = listener._context.now()
        info.place = self
        info.ends = (self.host, self.port, "", 0) if listener.own is None \
            else (self.host, self.port, listener.own[0], listener.own[1])
        listener.on_client(end, info)

    def socket_gone(self, end):
        self.leave()

    cpdef leave(self):
        """It is free."""
        cdef Entrance listener = self.listener
        cdef long left = <long>listener.per_source[self.source] - 1
        listener.active -= 1
        listener.net.gone()
        if left:
            listener.per_source[self.source] = left
        else:
            del listener.per_source[self.source]
