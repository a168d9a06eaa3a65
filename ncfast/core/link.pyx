"""A link: many flows over one carrier, framed. Sans-I/O: bytes come in by `receive`, `tick(now)` is called each half
second. What waits to leave, and in which order, is in `queues`.

Data is passed to its flow as it comes, without waiting for the frame's end; only headers and control bodies are
gathered.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ncfast.core.context cimport FlowContext
from ncfast.core.flow cimport Flow
from ncfast._frames cimport (
    ANNOUNCE, AUTH, CID_SIZE, CODEC_OK, CODEC_UNKNOWN_SKIP, FRAME_TYPES, GOAWAY, HEADER_SIZE, HELLO, HELLO_ACK,
    M_ACK, M_DATA, M_DETACH, M_FIN, M_GAP, M_OPEN, M_OPEN_ACK, M_RESUME, M_RESUME_ACK, M_RST, MAX_CONTROL, MOVE, PING,
    PONG,
    Header, build_frame, check_header, codec_error, read_header, write_header,
)
from ncfast.core.queues cimport FRAME_COST, Carrier, Queues
from ncfast.core.relay cimport Lane, Relay

from ncfast._frames import FrameType
from ncfast.core.errors import Reason, reason_of
from ncfast.core.states import FlowState

cdef enum:
    # frames between two ticks that moved nothing, beyond four a flow, before the peer is a flood
    NOISE = 1000
    FREE_RESUMES = 65536       # asked-for flows that we do not have, before they count as noise
    # answers that wait for one peer: a MiB. After a restart of ours an agent asks for all its flows at once, and reads
    # meanwhile; one whose tunnel ends for it asks for fewer the next time
    MAX_ANSWERS = 4096
    # noise of a third M_RESUME from the same byte within a second: each has everything sent again
    ASKED = 50
    TOLD = 16384               # flows remembered for a tick or two because they were refused or told to wait
    BUSY = 262144              # bytes received between two ticks that make a link busy
    WEIGHTY = 16               # what a frame whose body Python reads costs: so many times one that moves a byte

# seconds since the last tick, which is due each half second, from which on it was we who stood still
cdef double LATE = 2.0
cdef double MAX_FAR_RTT = 2.0  # seconds that a relay may say lie beyond it: windows are tuned to them

cdef dict NAMES = {int(type): type.name for type in FrameType}

cdef int CLOSED = FlowState.CLOSED
cdef int OPENING_FIN = FlowState.OPENING_FIN
cdef int R_UNKNOWN_FLOW = Reason.UNKNOWN_FLOW
cdef int R_STALE_EPOCH = Reason.STALE_EPOCH
cdef int R_LINK_LOST = Reason.LINK_LOST


cdef double far_rtt(const Header* h) noexcept:
    """Seconds of round trip beyond the link, as a relay says."""
    return min(h.seq / 1e6, MAX_FAR_RTT)


cdef dict _counted(const uint64_t* frames):
    cdef int type
    return {NAMES[type]: frames[type] for type in range(1, FRAME_TYPES) if frames[type]}


cdef class Link(Queues):
    """`handler` gets the events that are not the hot path's: `_on_frame__hello(payload)`, `__hello_ack(payload)`,
    `__open(cid, epoch, limit, payload)`, `__resume(cid, epoch, payload, ack, limit) -> bool` (False: no such flow),
    `__goaway(reason)`, `__auth(code, payload)`, `__announce(payload)`, `__move(payload)`, `__stale(cid, epoch)` (the
    far end of a flow knows of a higher epoch than ours), `link_rtt(link, seconds)`, and
    `link_ended(link, reason, detail)` once; and it is asked `foreign(cid) -> bool`, whether a flow that we do not have
    may be another hub's. `peer` names the far end in errors. A link `between_hubs` has no epoch of its own: each of its
    flows has. What makes noise in such a flow is counted by the hub that let it in, on the agent's tunnel: no agent can
    end a link between hubs."""

    def __init__(self, handler, Carrier carrier not None, FlowContext ctx not None, call_soon, call_later, *,
                 Py_ssize_t max_inflight, int queue_depth, bint between_hubs=False, str peer=""):
        super().__init__(carrier, ctx, call_soon, call_later, max_inflight=max_inflight, queue_depth=queue_depth)
        self.handler = handler
        self.peer = peer
        self.between_hubs = between_hubs
        self._told = set()
        self._refused = set()
        self._refused_before = set()
        self._last_heard = ctx.now()
        self._ping_sent = self._ticked_at = -1.0
        self._free_resumes = FREE_RESUMES

    def establish(self, uint64_t epoch):
        """Every frame of a flow carries `epoch` from now on, and must."""
        self.epoch = epoch

    @property
    def far_rtt(self):
        """Seconds of round trip beyond the link, as the M_RESUME says that the handler is being told of."""
        return far_rtt(&self._h)

    def resumed_late(self, Flow flow not None, double far_rtt):
        """The flow is on this link by an M_RESUME that the handler has kept for a while."""
        flow.far_rtt = far_rtt

    @property
    def load(self):
        """Flows on this link, relayed ones included."""
        return len(self.flows) + len(self.lanes)

    def counters(self):
        """(frames in, frames out) by frame type name."""
        return _counted(self._frames_in), _counted(self._frames_out)

    # in

    cdef int receive(self, uint8_t* p, Py_ssize_t n) except -1:
        """Bytes from the carrier, cut anywhere."""
        cdef Py_ssize_t k
        cdef Flow flow
        cdef int verdict
        self._heard = True
        self._header_at = NULL
        self.bytes_in += n
        while n > 0 and not self.closed:
            if self._left == 0:
                k = HEADER_SIZE - self._head_have
                self._header_at = NULL
                if n < k:
                    memcpy(self._head + self._head_have, p, n)
                    self._head_have += n
                    return 0
                if self._head_have:
                    memcpy(self._head + self._head_have, p, k)
                    read_header(self._head, &self._h)
                    self._head_have = 0
                else:
                    read_header(p, &self._h)
                    self._header_at = p
                p += k
                n -= k
                verdict = check_header(&self._h)
                if verdict < 0:
                    self.fail(Reason.PROTOCOL_ERROR, codec_error(verdict))
                    return 0
                if self._noise > NOISE and self._flooded():
                    return 0
                self._left = self._h.length
                self.work += 1
                self._frames_in[self._h.type if verdict == CODEC_OK else 0] += 1
                if verdict == CODEC_UNKNOWN_SKIP:
                    self._noise += 1
                    self._flow = None
                    self._lane = None
                    self._h.type = M_DATA            # skipped like data of a flow that is not ours
                elif self._h.type == M_DATA:
                    self._begin_data()
                elif self._left == 0:
                    self._dispatch(NULL, 0)
                continue
            k = self._left if self._left < n else n
            if self._h.type == M_DATA:
                flow = self._flow
                if flow is not None:
                    flow.on_data(self._at, p, k)
                    self._at += k
                elif self._lane is not None:
                    self._relay_data(p, k)
                    self._header_at = NULL           # belongs to what was passed on
                self._left -= k
            elif self._body is None and k == self._left:
                self._left = 0
                self._dispatch(p, k)
            else:
                if self._body is None:
                    self._body = bytearray()
                self._body += p[:k]
                self._left -= k
                if self._left == 0:
                    body, self._body = bytes(self._body), None
                    self._dispatch(<const uint8_t*>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
            p += k
            n -= k
        return 0

    cdef Flow _find(self):
        """The flow of the header, if it is on this link and the frame of its epoch."""
        cdef Flow flow
        self._stale = False
        if self._h.epoch != self.epoch and self.epoch:
            return self._old_epoch()
        flow = self._latest
        if flow is None or memcmp(PyBytes_AS_STRING(flow.cid), self._h.cid, CID_SIZE) != 0:
            flow = <Flow>self.flows.get(PyBytes_FromStringAndSize(<const char*>self._h.cid, CID_SIZE))
            if flow is not None:
                self._latest = flow
        if flow is not None and self._h.epoch != flow.epoch:
            return self._old_epoch()
        return flow

    cdef Lane _find_lane(self):
        """The relayed flow of the header, if it comes in here and the frame is of its epoch."""
        cdef Lane lane
        if self._stale or not self.lanes:
            return None
        lane = <Lane>self.lanes.get(PyBytes_FromStringAndSize(<const char*>self._h.cid, CID_SIZE))
        if lane is not None and self._h.epoch != lane.epoch:
            return self._old_epoch()
        return lane

    def _old_epoch(self):
        self._stale = True
        self.stale_epoch += 1
        self._flow_noise(1)

    cdef int _flow_noise(self, int weight) except -1:
        if not self.between_hubs:
            self._noise += weight
        return 0

    cdef int _in_vain(self) except -1:
        """The peer asked for a flow that is not there, or not its own. After a restart of ours it asks for many at
        once."""
        if self._free_resumes > 0:
            self._free_resumes -= 1
            return 0
        return self._flow_noise(1)

    cdef double _asked(self, double due, uint64_t since) except? -1:
        """A flow is asked for again, the last time from the byte `since`; the next asking was due at `due`. Returns
        when the one behind it is. Whoever keeps to a second may seem early by as much as the one before was late on its
        way: one asking in hand (as the generic cell rate algorithm has it, ITU-T I.371)."""
        cdef double now = self.ctx.now()
        if due > now + 1.0 and self._h.ack <= since:
            self._flow_noise(ASKED)
            return due
        return max(due, now) + 1.0

    cdef int _begin_data(self) except -1:
        cdef Flow flow = self._find()
        self._flow = flow
        self._lane = None
        self._at = self._h.seq
        if flow is None:
            self._lane = self._find_lane()
            if self._lane is None:
                return self._stranger()
            return 0
        flow.on_ack(self._h.ack, self._h.limit)
        if flow.state == CLOSED:
            self._flow = None
        elif self._h.seq + self._h.length > flow.rcv_limit:
            self._flow_noise(100)
            flow.violation()
            self._flow = None
        return 0

    cdef int _stranger(self) except -1:
        """A frame for a flow we do not have. Those of a flow that ended lately were on their way, and are counted; only
        M_RESUME and M_OPEN_ACK show that the peer still has the flow. The sender of others is told, and makes noise. A
        flow that another hub may ask for in a moment is to wait; one that waits may be told here that it does so in
        vain. Of one that another process may have by now all comes again there, when that has asked for it."""
        cdef bytes cid
        cdef Flow flow
        cdef int type = self._h.type
        if self._stale:
            return 0
        cid = PyBytes_FromStringAndSize(<const char*>self._h.cid, CID_SIZE)
        if cid in self.ctx.passed:
            return 0
        flow = <Flow>self.ctx.flows.get(cid)
        if flow is not None and type == M_RST and flow.left is self and self._h.epoch == flow.epoch:
            # it waits because of what was said here, and there is nothing to wait for
            return flow.on_rst(self._h.code)
        if flow is not None and type != M_RESUME:
            self.stale_epoch += 1        # it has another way now, and this is what was still on the old one
            return 0
        if type == M_RST and self.ctx.stray_reset is not None and self.ctx.closed.last(cid) is None:
            self.ctx.stray_reset(self, cid, self._h.code)
        if type != M_RESUME and type != M_RST and type != M_DETACH and type != M_GAP \
                and self.ctx.closed.last(cid) is None and self.handler.foreign(cid):
            self._flow_noise(1)
            if type != M_OPEN_ACK and (self._was_told(cid) or len(self._told) >= TOLD):
                return 0                 # told already: this was on its way
            if len(self._told) < TOLD:
                self._told.add(cid)
            return self._answer(M_DETACH, self._h.cid, self._h.epoch, R_LINK_LOST, 0)
        if type == M_RESUME or type == M_OPEN_ACK:
            self._in_vain()
            return self._answer(M_RST, self._h.cid, self._h.epoch, R_UNKNOWN_FLOW, 0)
        if self.ctx.closed.last(cid) is not None:
            self.ctx.duplicates += 1
            return 0
        self._flow_noise(1)
        if (type == M_DATA or type == M_FIN) and not self._was_told(cid) and self._answers.size < self.queue_depth:
            return self._answer(M_RST, self._h.cid, self._h.epoch, R_UNKNOWN_FLOW, 0)
        return 0

    cdef bint _was_told(self, bytes cid) except -1:
        """Whether what comes of the flow was on its way and needs no answer. Behind an open that was refused it may be
        so for half a second, whenever the next tick is."""
        return cid in self._told or cid in self._refused or cid in self._refused_before

    cdef int _dispatch(self, const uint8_t* body, Py_ssize_t n) except -1:
        """A whole frame other than M_DATA: the table of what is done with each type."""
        cdef int type = self._h.type
        cdef bytes payload
        if type == M_ACK or type == M_FIN or type == M_RST or type == M_OPEN_ACK or type == M_RESUME_ACK \
                or type == M_DETACH or type == M_GAP:
            return self._on_flow()
        if type == PING:
            return self._on_ping()
        if type == PONG:
            return self._on_pong()
        self.work += WEIGHTY - 1
        payload = PyBytes_FromStringAndSize(<const char*>body, n) if n else b""
        if type == M_OPEN:
            return self._on_open(payload)
        if type == M_RESUME:
            return self._on_resume(payload)
        if type == HELLO:
            self.handler._on_frame__hello(payload)
        elif type == HELLO_ACK:
            self.handler._on_frame__hello_ack(payload)
        elif type == GOAWAY:
            self._noise += 10
            self.handler._on_frame__goaway(reason_of(self._h.code))
        elif type == AUTH:
            self._noise += 10
            self.handler._on_frame__auth(self._h.code, payload)
        elif type == ANNOUNCE:
            self._noise += 10
            self.handler._on_frame__announce(payload)
        elif type == MOVE:
            self._noise += 10
            self.handler._on_frame__move(payload)
        else:                            # the codec knows it, and this table does not
            self.fail(Reason.PROTOCOL_ERROR, f"frames of type {type} are not taken here")
        return 0

    cdef int _on_flow(self) except -1:
        """A frame without payload for a flow that is open, opening or resuming, or for a relay."""
        cdef Lane lane
        cdef Flow flow = self._find()
        cdef int type = self._h.type
        if flow is None:
            lane = self._find_lane()
            return self._stranger() if lane is None else self._relay_control(lane)
        if type == M_ACK:
            if self._h.ack <= flow.snd_una and self._h.limit <= flow.snd_limit:
                self._flow_noise(1)      # says nothing new
            flow.on_ack(self._h.ack, self._h.limit)
        elif type == M_FIN:
            self._flow_noise(flow.fin_received)
            flow.on_ack(self._h.ack, self._h.limit)
            flow.on_fin(self._h.seq)
        elif type == M_RST:
            flow.on_rst(self._h.code)
        elif type == M_OPEN_ACK:
            self._flow_noise(flow.state > OPENING_FIN)
            flow.far_rtt = far_rtt(&self._h)
            flow.on_open_ack(self._h.ack, self._h.limit)
        elif type == M_RESUME_ACK:
            self._on_resume_ack(flow)
        elif type == M_DETACH:
            flow.detach()
            flow.left = self
            self._tell_lost(flow.cid)
        elif type == M_GAP:
            self._flow_noise(1)
            flow.gap(True)
            self._tell_lost(flow.cid)
        return 0

    cdef int _on_resume_ack(self, Flow flow) except -1:
        if flow.resumed and not flow.asked_again:
            # both ends may have asked at once, and then the other's question was our answer
            if flow.asks:
                flow.asks -= 1
            else:
                self._flow_noise(100)    # an answer that nobody asked for would have everything sent again
            return flow.on_ack(self._h.ack, self._h.limit)
        if flow.asks:
            flow.asks -= 1
        flow.far_rtt = far_rtt(&self._h)
        flow.resume(self, self._h.ack, self._h.limit, False)
        return 0

    cdef int _on_ping(self) except -1:
        self._pong_owed = True
        self._pong_seq = self._h.seq
        self._noise += 1
        return self._flush()

    cdef int _on_pong(self) except -1:
        if self._ping_sent >= 0 and self._h.seq == self._ping_seq:
            self.rtt = self.ctx.now() - self._ping_sent
            self._ping_sent = -1.0
            self.handler.link_rtt(self, self.rtt)
        else:
            self._noise += 1
        return 0

    cdef bint _outdated(self) except -1:
        """Whether an M_OPEN or M_RESUME is of another epoch than the link; then its sender is told."""
        self._stale = False
        if self._h.epoch == self.epoch or not self.epoch:
            return False
        self._old_epoch()
        if self._answers.size < self.queue_depth:
            self._answer(M_RST, self._h.cid, self._h.epoch, R_STALE_EPOCH, 0)
        return True

    cdef int _on_open(self, bytes payload) except -1:
        cdef bytes cid
        if self._outdated():
            return 0
        cid = PyBytes_FromStringAndSize(<const char*>self._h.cid, CID_SIZE)
        if cid in self.ctx.passed:
            return 0
        self.handler._on_frame__open(cid, self._h.epoch, self._h.limit, payload)
        if cid in self.flows:
            (<Flow>self.flows[cid]).far_rtt = far_rtt(&self._h)
        return 0

    cdef int _on_resume(self, bytes payload) except -1:
        cdef bytes cid
        cdef Flow flow
        cdef Lane lane
        cdef uint64_t refused
        if self._outdated():
            return 0
        cid = PyBytes_FromStringAndSize(<const char*>self._h.cid, CID_SIZE)
        if cid in self.ctx.passed:
            return 0
        flow = <Flow>self.flows.get(cid)
        if flow is not None and flow.resumed and flow.state > OPENING_FIN:
            flow.asked_due = self._asked(flow.asked_due, flow.asked_from)
            flow.asked_from = self._h.ack
        elif flow is None and cid in self.lanes:
            lane = <Lane>self.lanes[cid]
            if lane.invited:
                lane.invited -= 1
            else:
                lane.asked_due = self._asked(lane.asked_due, lane.asked_from)
                lane.asked_from = self._h.ack
        refused = self._frames_out[<int>M_RST]
        if not self.handler._on_frame__resume(cid, self._h.epoch, payload, self._h.ack, self._h.limit):
            self._stranger()
        elif refused != self._frames_out[<int>M_RST]:
            self._in_vain()
        elif cid in self.flows:
            (<Flow>self.flows[cid]).far_rtt = far_rtt(&self._h)
        return 0

    # relayed frames: in by one link, out by another, looked at but not taken apart

    cdef int _relay_data(self, uint8_t* p, Py_ssize_t n) except -1:
        """`n` bytes of payload at p leave as a frame of their own: the very frame, if all of it is here."""
        cdef Lane lane = self._lane
        cdef Queues out = <Queues>lane.out
        cdef Header h = self._h
        cdef bytes frame
        cdef bint passed
        h.seq = self._at
        h.length = n
        self._at += n
        if out is None:
            self.drops_away += 1
            return 0
        if lane.queue.size or not out._writable:
            out._owe(lane, h.ack, h.limit)             # also if the frame itself is dropped
        if self._header_at is not NULL and self._header_at + HEADER_SIZE == p:
            if n != self._left:
                write_header(self._header_at, &h)
            passed = out._pass_on(lane, M_DATA, self._header_at, HEADER_SIZE + n, None, self)
        else:
            frame = build_frame(&h, p)
            passed = out._pass_on(lane, M_DATA, <const uint8_t*>PyBytes_AS_STRING(frame), HEADER_SIZE + n, frame, self)
        if passed:
            self._saw(lane, M_DATA, h.seq, h.ack, h.limit)
        return 0

    cdef int _relay_control(self, Lane lane) except -1:
        cdef Queues out = <Queues>lane.out
        cdef int type = self._h.type
        cdef bytes frame
        cdef bint passed
        if (type == M_DETACH or type == M_GAP) and not self.between_hubs:
            return self._tell_lost(lane.cid)     # an agent's, and no news for the origin
        if type == M_ACK:
            self._flow_noise(self._h.ack <= lane.ack and self._h.limit <= lane.limit)
        elif type == M_FIN:
            self._flow_noise(lane.ended)
        elif type == M_OPEN_ACK:
            self._flow_noise(lane.relay.opened)
        elif type != M_RST:
            self._flow_noise(1)
        elif out is not None and lane.relay is not None and lane is lane.relay.down and lane.relay.up.asked:
            (<Link>out)._in_vain()       # the agent asked for what its origin does not have, or not for it
        if type == M_OPEN_ACK or type == M_RESUME_ACK:
            self._h.seq = <uint64_t>(self.rtt * 1e6)
            self._header_at = NULL
        if out is None:
            self.drops_away += 1
            passed = type == M_RST       # there is nobody to tell
        elif type == M_ACK and self._h.ack and (lane.queue.size or not out._writable):
            passed = not out.closed
            out._owe(lane, self._h.ack, self._h.limit)
        elif self._header_at is not NULL:
            passed = out._pass_on(lane, type, self._header_at, HEADER_SIZE, None, self)
        else:
            frame = build_frame(&self._h, NULL)
            passed = out._pass_on(lane, type, <const uint8_t*>PyBytes_AS_STRING(frame), HEADER_SIZE, frame, self)
        # an end counts although it was dropped: it may have arrived before, and then nobody asks for it; nor does
        # whoever has no flow any more to resume
        if passed or type == M_FIN or type == M_RESUME_ACK:
            self._saw(lane, type, self._h.seq, self._h.ack if passed else 0, self._h.limit if passed else 0)
        if type == M_DETACH:
            self._tell_lost(lane.cid)
        return 0

    cdef int _tell_lost(self, bytes cid) except -1:
        """Of M_DETACH and M_GAP the handler hears, and ends a link whose other end has no relay to say so of."""
        cdef bint stale = self._h.type == M_DETACH and self._h.code == R_STALE_EPOCH
        self.handler._on_frame__lost(cid, self._h.seq if stale else 0)
        return 0

    cdef int _saw(self, Lane lane, int type, uint64_t seq, uint64_t ack, uint64_t limit) except -1:
        """A frame has passed on the lane; if it was the flow's last, the relay is over."""
        cdef Relay relay = lane.relay    # held: who is told of an open may forget it
        if relay is not None and relay.saw(lane, type, seq, ack, limit):
            self.ctx.closed.record(lane.cid, lane.end)
            relay.forget()
        return 0

    def forward(self, Lane lane not None, int type, bytes payload, *, uint64_t ack=0, uint64_t limit=0, double rtt=0.0):
        """Sends on M_OPEN or M_RESUME, which came in by another link with a round trip of `rtt` seconds. False: it was
        dropped. Raises ValueError for another type, and for a payload that no frame may have."""
        cdef Header h
        cdef bytes frame
        if type != M_OPEN and type != M_RESUME:
            raise ValueError("only M_OPEN and M_RESUME are sent on")
        if PyBytes_GET_SIZE(payload) > MAX_CONTROL:
            raise ValueError("longer than a control frame may be")
        memset(&h, 0, sizeof(h))
        h.type = type
        h.length = PyBytes_GET_SIZE(payload)
        h.epoch = lane.epoch
        memcpy(h.cid, PyBytes_AS_STRING(lane.cid), CID_SIZE)
        h.seq = <uint64_t>(rtt * 1e6)
        h.ack = ack
        h.limit = limit
        frame = build_frame(&h, <const uint8_t*>PyBytes_AS_STRING(payload))
        passed = self._pass_on(lane, type, <const uint8_t*>PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), frame,
                               None)
        self._send_through()
        if passed:
            self._saw(lane, type, 0, ack, limit)
        return passed

    # what the link itself has to say

    def send(self, int type, bytes payload=b"", *, int code=0, uint64_t seq=0):
        """A frame of the link itself: HELLO, GOAWAY, AUTH, ANNOUNCE, MOVE. Raises ValueError for no frame type."""
        cdef Header h
        if not 0 < type < FRAME_TYPES:
            raise ValueError(f"{type} is no frame type")
        if self.closed:
            return
        memset(&h, 0, sizeof(h))
        h.type = type
        h.code = code
        h.seq = seq
        h.epoch = self.epoch
        h.length = PyBytes_GET_SIZE(payload)
        self._control.push(build_frame(&h, <const uint8_t*>PyBytes_AS_STRING(payload)))
        self._frames_out[type] += 1
        if self._control.size > self.queue_depth:
            self.fail(Reason.STALLED, "control frames pile up: the peer does not read")
        elif self._writable:
            self._flush()

    cdef int _answer(self, int type, const uint8_t* cid, uint64_t epoch, int code, uint64_t seq) except -1:
        """For a flow that is not ours, or cannot be, or has lost its way."""
        cdef Header h
        if self._answers.size >= MAX_ANSWERS:
            self._flush()
        if self._answers.size >= MAX_ANSWERS:
            self._in_vain()
            if not self.between_hubs:
                self.fail(Reason.STALLED, "answers pile up: the peer does not read")
        if self.closed or self._answers.size >= MAX_ANSWERS:
            return 0
        memset(&h, 0, sizeof(h))
        h.type = type
        h.code = code
        h.epoch = epoch
        h.seq = seq
        memcpy(h.cid, cid, CID_SIZE)
        self._answers.push(build_frame(&h, NULL))
        self.ctx.relay(FRAME_COST)
        self._frames_out[type] += 1
        if not self._corked:
            self._corked = True
            self._call_soon(self._uncork_callback)
        return 0

    def refuse(self, bytes cid not None, int code, uint64_t epoch=0):
        """Answers an open or resume that cannot be; `epoch` is the frame's, 0 the link's."""
        if len(self._refused) < TOLD:
            self._refused.add(cid)
        self._answer(M_RST, <const uint8_t*>PyBytes_AS_STRING(cid), epoch if epoch else self.epoch, code, 0)

    def tell_detached(self, bytes cid not None, uint64_t epoch, int code, uint64_t newest=0):
        """Tells an end of a flow that the way beyond this hub is lost: `code` says why, `newest` is the epoch that a
        stale one lost against."""
        cdef Lane lane = self.lanes.get(cid)
        if lane is not None:
            lane.invited += 1
        self._answer(M_DETACH, <const uint8_t*>PyBytes_AS_STRING(cid), epoch, code, newest)

    def ping(self):
        """Sends a PING unless one is unanswered; `handler.link_rtt(link, seconds)` tells the round trip."""
        if self._ping_sent < 0:
            self._ping_seq += 1
            self._ping_sent = self._pinged_at = self.ctx.now()
            self.send(PING, seq=self._ping_seq)

    # time and end

    def noise(self, int weight):
        """Counts something of the peer's that moved nothing."""
        self._noise += weight
        self._flooded()

    cdef bint _flooded(self) except -1:
        """Ends the link if the peer is a flood. Asked while frames come, not at the next tick: half a second of them
        is much."""
        if self._noise > NOISE + 4 * self.load:
            self.fail(Reason.FLOOD, f"{self._noise} frames without effect since the last tick")
        return self.closed

    def tick(self, double now, double interval, double timeout, double stall, double echo=0.0):
        """Keepalive and flood control; call each half second. A ping goes every `interval` seconds, and at each tick
        of a busy link, since windows are tuned to the round trip under load. Any received byte proves life, silence for
        `timeout` ends the link, and so does a peer that takes nothing for `stall` (0: for ever), or one that is heard
        but does not answer a ping for `echo` (0: for ever): it does not hear us. A tick that comes LATE judges none of
        these."""
        cdef bint busy = self.bytes_in - self._bytes_at_tick > BUSY
        cdef bint late = self._ticked_at >= 0 and now - self._ticked_at >= LATE
        self._ticked_at = now
        self._flooded()
        self._noise = 0
        self._told.clear()
        self._refused, self._refused_before = self._refused_before, self._refused
        self._refused.clear()
        self._bytes_at_tick = self.bytes_in
        if self.closed:
            return
        if self._heard:
            self._heard = False
            self._last_heard = now
        if late:                         # we stood still: what came meanwhile is yet to be read
            self.ping()
        elif now - self._last_heard >= timeout:
            self.fail(Reason.KEEPALIVE_TIMEOUT, f"nothing heard for {now - self._last_heard:.1f} s")
        elif stall and self._blocked_since >= 0 and now - self._blocked_since >= stall:
            self.fail(Reason.STALLED, f"the peer has taken nothing for {now - self._blocked_since:.1f} s")
        elif echo and self._ping_sent >= 0 and now - self._ping_sent >= echo:
            self.fail(Reason.KEEPALIVE_TIMEOUT, f"heard, but no answer to a ping for {now - self._ping_sent:.1f} s")
        elif busy or now - self._pinged_at >= interval:
            self.ping()

    def fail(self, reason, str detail=""):
        """Ends the link for `reason`, once: the carrier tells the peer, every flow detaches, the handler is told."""
        if self.closed:
            return
        self.closed = True
        self.carrier.end(reason, detail)
        self._release(reason, detail)

    def lost(self, reason, str detail=""):
        """The carrier is gone already."""
        if not self.closed:
            self.closed = True
            self._release(reason, detail)

    def _release(self, reason, detail):
        cdef Flow flow
        try:
            self.settle()                # what came in before the end goes on, while its memory is still there
        finally:
            self.clear()
            self._flow = self._latest = None
            self._lane = None
            for flow in list(self.flows.values()):
                flow.detach()
            self.flows.clear()
            self.handler.link_ended(self, reason, detail)
