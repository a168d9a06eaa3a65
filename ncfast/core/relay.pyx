"""A flow that a hub passes on: which two links belong to its cid, what waits for them, when it is over. Sans-I/O.

The relay neither acknowledges nor repeats anything: both ends do. It looks at headers only to see both directions end,
so that it can forget the flow. Moving the frames is the links' work (`Link.receive`, `Queues._flush`).
"""

from libc.stdint cimport uint64_t

from ncfast.core.fifo cimport Fifo
from ncfast.core.ends cimport Path, Source
from ncfast._frames cimport M_DATA, M_FIN, M_OPEN_ACK, M_RESUME, M_RESUME_ACK, M_RST


cdef class Lane(Source):

    def __cinit__(self):
        self.queue = Fifo()
        self.asked_due = -1.0

    cdef int clear(self) except -1:
        self.queue.clear()
        self.unsent_bytes = 0
        self.deficit = 0
        self.resume_waits = False
        return 0

    @property
    def waiting(self):
        """Frames that wait for `out`."""
        return self.queue.size


cdef class Relay:
    """The flow `cid` of the agent whose tunnel here has `epoch`; `info`, the hub's, is told `relay_opened(relay)` and
    `relay_ended(relay)`.

    A relay belongs to one tunnel for life; the link to the client's hub may come and go.
    """

    def __init__(self, bytes cid not None, uint64_t epoch, Path tunnel not None, info):
        self.cid = cid
        self.epoch = epoch
        self.info = info
        self.up = Lane()
        self.down = Lane()
        self.up.cid = self.down.cid = cid
        self.up.epoch = self.down.epoch = epoch
        self.up.relay = self.down.relay = self         # a cycle, until the flow is over
        self.down.out = tunnel
        tunnel.lanes[cid] = self.up

    @property
    def tunnel(self):
        return self.down.out

    @property
    def mesh(self):
        """The link to the client's hub, None while it is away."""
        return self.up.out

    def connect(self, Path mesh not None):
        """Puts the flow on a link to its client's hub."""
        self.disconnect()
        self.up.out = mesh
        mesh.lanes[self.cid] = self.down

    def disconnect(self):
        """The link to the client's hub is gone, or another takes its place; what waited for it goes with it."""
        cdef Path mesh = self.up.out
        if mesh is None:
            return
        if mesh.lanes.get(self.cid) is self.down:
            del mesh.lanes[self.cid]
        mesh.drop(self.up)
        self.down.out.drop(self.down)
        self.up.out = None
        self.up.lossy = self.down.lossy = self.up.asked = self.down.asked = False      # both ends will resume

    def forget(self):
        """Frames of this cid are nobody's from now on; those that wait are still sent. `info.relay_ended(relay)` is
        told once."""
        cdef Path tunnel = self.down.out, mesh = self.up.out
        if self.over:
            return
        self.over = True
        if mesh is not None and mesh.lanes.get(self.cid) is self.down:
            del mesh.lanes[self.cid]
        if tunnel.lanes.get(self.cid) is self.up:
            del tunnel.lanes[self.cid]
        self.up.relay = self.down.relay = None
        self.info.relay_ended(self)

    cdef bint saw(self, Lane lane, int type, uint64_t seq, uint64_t ack, uint64_t limit) except -1:
        """A frame has passed on `lane`; whether it was the flow's last: a reset, or the second acknowledged end. After
        a resume both ends send their M_FIN again, for a relay that has not seen it, and its acknowledgement may have
        passed before it. Whoever has asked to resume waits for the answer, even if nothing else is left to come."""
        if type == M_RST:
            return True
        if not self.opened and lane is self.up \
                and (type == M_OPEN_ACK or type == M_DATA or type == M_FIN or type == M_RESUME):
            self.opened = True           # M_OPEN_ACK itself may be lost, or have gone by another relay
            self.info.relay_opened(self)
        if type == M_FIN:
            lane.ended = True
            lane.end = seq
        elif type == M_RESUME:
            lane.asked = True
        elif type == M_RESUME_ACK:
            (self.down if lane is self.up else self.up).asked = False
        if ack > lane.ack:
            lane.ack = ack
        if limit > lane.limit:
            lane.limit = limit
        return self.up.ended and self.down.ended and self.down.ack > self.up.end and self.up.ack > self.down.end \
            and not self.up.asked and not self.down.asked
