"""Which agent a client's flow goes to: the flow is made, sent to the least loaded agent that is here, and answered.

Compiled because each client comes through here. `ncfast.hub.routing` adds agents of other hubs, refusals, and clients
that wait.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from ncfast._frames cimport CID_SIZE, SECRET_SIZE

from ncfast.hub.opens import UNDIRECTED as _UNDIRECTED

DRAWN = 32                     # agents of a connector that are compared for a new flow: 5,000 would cost it 1.7 ms

cdef enum:
    AHEAD = 256                # secrets of flows drawn at once: one system call for many
    NUMBER = 8                 # bytes of a flow's number in its cid


cdef class Choice:
    """The usual way of a client's flow at the hub where it has come in."""

    def __init__(self, ground not None, sessions not None, ways not None, PendingOpens pending not None,
                 Opens steering not None, hold not None):
        self._ground = ground
        self._sessions = sessions
        self._ways = ways
        self._pending = pending
        self._steering = steering
        self.hold = hold
        self._opened = self.opened
        self._secrets = b""

    cpdef client_ready(self, SocketEnd end, ClientInfo info):
        """A client's socket is there: give it a flow and a way."""
        ground = self._ground
        cdef Flow flow
        cdef bytes cid = self.next_cid()
        host, port, own, _ = info.ends
        if not own and (local := end.transport.get_extra_info("sockname")):
            info.ends = (host, port, local[0], local[1])
        info.on_opened = self._opened
        flow = Flow.__new__(Flow, ground.context, cid, self.draw(), _UNDIRECTED, info, 0, info.share)
        ground.flows[cid] = flow
        ground.stats.flows_opened += 1
        info.counts.accepted += 1
        end.carry(flow)
        if ground.mode == "shadow":
            self.shadow.decide(info)
        self._enter(flow)

    cdef bytes next_cid(self):
        """Of a new flow: unique across hubs and their restarts."""
        cdef bytes instance = self._ground.instance
        cdef uint8_t cid[CID_SIZE]
        cdef uint64_t number
        cdef int at
        if PyBytes_GET_SIZE(instance) != CID_SIZE - NUMBER:
            raise ValueError("an instance is 8 bytes")
        self.flow_number += 1
        number = self.flow_number
        memcpy(cid, PyBytes_AS_STRING(instance), CID_SIZE - NUMBER)
        for at in range(CID_SIZE - 1, CID_SIZE - NUMBER - 1, -1):
            cid[at] = number & 0xFF
            number >>= 8
        return PyBytes_FromStringAndSize(<char*>cid, CID_SIZE)

    cdef bytes draw(self):
        """The secret of a flow."""
        cdef Py_ssize_t at = self._next_secret
        if at == PyBytes_GET_SIZE(self._secrets):
            self._secrets = self._ground.net.entropy(AHEAD * SECRET_SIZE)
            at = 0
        self._next_secret = at + SECRET_SIZE
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(self._secrets) + at, SECRET_SIZE)

    cpdef _enter(self, Flow flow):
        cdef ClientInfo info = flow.info
        if (self.hold.queues and info.key in self.hold) or not self.dispatch(flow):
            self._hold_or_refuse(flow)   # behind those who wait already

    # choosing

    cpdef bint dispatch(self, Flow flow) except -1:
        """Sends the open on the best way to an agent that serves it and has not refused it yet. False: there is
        none."""
        cdef ClientInfo info = flow.info
        session = self.least_loaded(info)
        if session is not None:
            self._steering.open(flow, session.key, session.instance, session, session.epoch)
            return True
        if self._ways.active and (way := self._remote_way(info)) is not None:
            entry, peer = way
            self._steering.open(flow, entry.key, entry.instance, peer, entry.epoch, entry.window)
            return True
        return False

    cdef object least_loaded(self, ClientInfo info):
        """The agent that is owned here and takes the flow, if there is one."""
        cdef Crowd routed = self._sessions.routed(info.key)
        cdef list local
        if len(routed.all) <= DRAWN:
            local = self.willing(routed.all, info)
        else:
            local = self.willing(routed.draw(DRAWN, self._ground.net.rng), info) or self.willing(routed.all, info)
        if len(local) <= 1:
            return local[0] if local else None
        least = min([session.load for session in local])
        return self._ground.net.rng.choice([one for one in local if one.load == least])

    cdef list willing(self, list sessions, ClientInfo info):
        cdef Serving one
        cdef list found = []
        tenant, connector = info.key
        for one in sessions:
            if one.serves(tenant, connector) and not self._pending.full(one.key, connector) \
                    and one.key not in info.tried:
                found.append(one)
        return found

    # answers

    cpdef opened(self, Flow flow):
        """The target is connected."""
        cdef ClientInfo info = flow.info
        cdef Opens steering = self._steering
        cdef int turns
        steering.answered(flow)
        self._ground.stats.flows_by_path[info.way()] += 1
        info.counts.open_latency.observe(self._ground.clock() - info.accepted_at)
        # Of room at another hub an answer says only that one place there is free; more would come back refused.
        turns = 1 if info.remote else self._pending.most
        if steering._waiting:
            turns -= <int>steering.give_turns(info.agent_key, info.key[1], turns)
        if turns and self.hold.queues and info.key in self.hold:
            self.hold.release(info.key, self.dispatch, turns)

    # what is not usual

    def _remote_way(self, info):
        """An agent of another hub, and the link to that, if there is one that takes the flow."""
        raise NotImplementedError

    def _hold_or_refuse(self, flow):
        """There is no way."""
        raise NotImplementedError
