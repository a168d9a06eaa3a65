"""A link: many flows over one carrier, framed. Sans-I/O: bytes come in by `receive`, leave by the carrier; timers are
asked for through `call_later`, and `tick(now)` is called about once a second.

Out: three queues, served in this order. `urgent`: flows that owe a control frame. `short`: flows whose unsent bytes
fit in SHORT. `bulk`: the others, by deficit round robin (Shreedhar and Varghese, SIGCOMM 1995) with a quantum of 16
KiB. After SHORT_RUN bytes of short messages one bulk quantum is served, so that neither starves. A flow that the
in-flight cap holds when its turn comes waits in `capped`, and is the next when there is room. The first frame of an
idle link leaves at once; what follows in the same turn of the loop leaves in one write at its end, except whole large
chunks, for which a write of their own costs nothing.

In: data is passed to its flow as it comes, without waiting for the frame's end; only headers and control bodies are
gathered.
"""

from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from ncfast.core.flow cimport (
    SEND_ACK, SEND_FIN, SEND_LATE_RST, SEND_OPEN, SEND_OPEN_ACK, SEND_RESUME, SEND_RESUME_ACK, SEND_RST, URGENT,
    Flow, FlowContext, Path, Source,
)
from ncfast._frames cimport (
    ANNOUNCE, AUTH, CID_SIZE, CODEC_OK, CODEC_UNKNOWN_SKIP, GOAWAY, HEADER_SIZE, HELLO, HELLO_ACK, M_ACK, M_DATA, M_FIN, MAX_CONTROL,
    M_DETACH, M_GAP, M_OPEN, M_OPEN_ACK, M_RESUME, M_RESUME_ACK, M_RST, MAX_DATA, PING, PONG,
    Chunk, Header, build_frame, check_header, codec_error, read_header, write_header,
)
from ncfast.core.relay cimport Lane, Relay

from ncfast._frames import FrameType
from ncfast.core.errors import Reason, reason_of
from ncfast.core.states import FlowState

cdef enum:
    # bytes from which a write is full, about what TCP_NOTSENT_LOWAT lets the kernel hold unsent;
    MAX_BATCH = 131072
                               # with the frame that fills it at most 227 KiB, so every peer must take messages of 256
                               # KiB
    SHORT = 4096               # a flow with no more than this to send is a short message
    SHORT_RUN = 65536          # bytes of short messages before bulk gets a turn
    QUANTUM = 16384            # bytes of a bulk flow's turn, and the size of its reads while others wait
    # frames between two ticks that moved nothing, beyond four a flow, before the peer is a flood
    NOISE = 1000
    LONELY = 8                 # turns of one frame in a row after which corking pauses
    PROBE = 16                 # then every so many frames it is tried again
    FRAME_COST = 256           # bytes that a queued frame counts beside its own
    FREE_RESUMES = 65536       # asked-for flows that we do not have, before they count as noise
    # noise of a second M_RESUME from the same byte within a second: each has everything sent again
    ASKED = 50
    # relayed bytes from which a write of theirs is full: with one frame more still no 256 KiB
    MAX_THROUGH = 196608
    TOLD = 16384               # flows remembered until the next tick because they were refused or told to wait
    SPARED = 16384             # bytes of each relayed direction that wait although memory is short
    BUSY = 262144              # bytes received between two ticks that make a link busy
    NO_LIMIT = 1 << 30

cdef double ACK_DELAY = 0.025  # seconds; below TCP's 40 ms, so that a chain of both does not add up
cdef double MAX_FAR_RTT = 2.0  # seconds that a relay may say lie beyond it: windows are tuned to them

cdef int CLOSED = FlowState.CLOSED
cdef int OPENING_FIN = FlowState.OPENING_FIN
cdef int R_UNKNOWN_FLOW = Reason.UNKNOWN_FLOW
cdef int R_STALE_EPOCH = Reason.STALE_EPOCH
cdef int R_LINK_LOST = Reason.LINK_LOST


cdef double far_rtt(const Header* h) noexcept:
    """Seconds of round trip beyond the link, as a relay says."""
    return min(h.seq / 1e6, MAX_FAR_RTT)


cdef class Carrier:

    cdef int send(self, Piece* pieces, list bases, int count, Py_ssize_t total) except -1:
        """Sends the pieces in order, now; what the kernel does not take is kept by the carrier. `bases[i]` owns piece
        i."""
        raise NotImplementedError

    cdef int end(self, reason, str detail) except -1:
        raise NotImplementedError


cdef class Link(Path):
    """`handler` gets the events that are not the hot path's: `_on_frame__hello(payload)`, `__hello_ack(payload)`,
    `__open(cid, epoch, limit, payload)`, `__resume(cid, epoch, payload, ack, limit) -> bool` (False: no such flow),
    `__goaway(reason)`, `__auth(code, payload)`, `__announce(payload)`, `__stale(cid, epoch)` (the far end of a flow
    knows of a higher epoch than ours), `link_rtt(link, seconds)`, and `link_ended(link, reason, detail)` once; and it
    is asked `foreign(cid) -> bool`, whether a flow that we do not have may be another hub's. `peer` names the far end
    in errors. A link between hubs has no epoch of its own: each of its flows has. What makes noise in such a flow is
    counted by the hub that let it in, on the agent's tunnel: no agent can end a link between hubs."""

    def __init__(self, handler, Carrier carrier not None, FlowContext ctx not None, call_soon, call_later, *,
                 Py_ssize_t max_inflight, int queue_depth, str peer=""):
        self.handler = handler
        self.carrier = carrier
        self.ctx = ctx
        self._call_soon = call_soon
        self._call_later = call_later
        self.max_inflight = max_inflight
        self.queue_depth = queue_depth
        self.peer = peer
        self.peer_window = ctx.window_initial
        self.flows = {}
        self.lanes = {}
        self._through_bases = []
        self._touched = []
        self._told = set()
        self._control = deque()
        self._answers = deque()
        self._owing = deque()
        self._urgent = deque()
        self._short = deque()
        self._bulk = deque()
        self._capped = deque()
        self._acks = deque()
        self._uncork_callback = self._uncork         # bound once, not at each write
        self._writable = True
        self._last_heard = ctx.clock()
        self._blocked_since = -1.0
        self._ping_sent = -1.0
        self._free_resumes = FREE_RESUMES

    def establish(self, uint64_t epoch):
        """Every frame of a flow carries `epoch` from now on, and must."""
        self.epoch = epoch

    def noise(self, int weight):
        """Counts something of the peer's that moved nothing."""
        self._noise += weight

    @property
    def writable(self):
        return self._writable

    @property
    def queued(self):
        """Control frames and flows that wait for the carrier."""
        return len(self._control) + len(self._answers) + len(self._owing) + len(self._urgent) + len(self._short) + len(self._bulk) \
            + len(self._capped) + self.relay_frames

    @property
    def load(self):
        """Flows on this link, relayed ones included."""
        return len(self.flows) + len(self.lanes)

    def counters(self):
        """(frames in, frames out) by frame type name."""
        return ({t.name: self._frames_in[<int>t] for t in FrameType if self._frames_in[<int>t]},
                {t.name: self._frames_out[<int>t] for t in FrameType if self._frames_out[<int>t]})

    def add(self, Flow flow not None):
        """From now on frames of this cid on this link are the flow's."""
        self.flows[flow.cid] = flow

    cdef int adopt(self, Flow flow) except -1:
        self.flows[flow.cid] = flow
        return 0

    # out

    cdef int submit(self, Flow flow) except -1:
        cdef bint idle
        if self.closed:
            return 0
        if flow.pending & URGENT:
            if not flow.in_urgent:
                flow.in_urgent = True
                self._urgent.append(flow)
        elif not flow.in_data and (flow.unsent is not None or flow.pending):
            idle = not (self._short or self._bulk or self._capped or self._urgent or self._control)
            self._enqueue(flow)
            if flow.unsent_bytes > SHORT and idle and self._writable:
                return self._flush()
        else:
            return 0
        if not self._corked:
            self._cork()
            return self._flush()
        return 0

    cdef int _enqueue(self, Source source) except -1:
        source.in_data = True
        if source.unsent_bytes <= SHORT:
            self._short.append(source)
        else:
            self._bulk.append(source)
        return 0

    cdef int _cork(self) except -1:
        """Until the end of this turn frames are gathered. The end costs a callback, so a link on which turns have
        lately made one frame each gathers only now and then, to see whether that has changed."""
        self._turns += 1
        if self._lonely < LONELY or self._turns % PROBE == 0:
            self._corked = True
            self._call_soon(self._uncork_callback)
        return 0

    def _uncork(self):
        self._corked = False
        if self._urgent or self._short or self._bulk or self._capped or self._control or self._answers or self._owing:
            self._lonely = 0
            if not self.closed:
                self._flush()
        else:
            self._lonely += 1

    cdef int ack_soon(self, Flow flow) except -1:
        if not flow.ack_waiting:
            flow.ack_waiting = True
            flow.ack_mark = flow.rcv_acked
            self._acks.append(flow)
            if not self._ack_timer:
                self._ack_timer = True
                self._call_later(ACK_DELAY, self._send_acks)
        return 0

    def _send_acks(self):
        cdef Flow flow
        self._ack_timer = False
        if self.closed:
            return
        acks, self._acks = self._acks, deque()
        self._corked = True
        for flow in acks:
            flow.ack_waiting = False
            if flow.path is not self or flow.state == CLOSED or flow.ack_value() == flow.rcv_acked:
                continue
            if flow.rcv_acked != flow.ack_mark:
                self.ack_soon(flow)      # its own data carried one meanwhile, and is likely to carry the next
            else:
                flow.pending |= SEND_ACK
                self.submit(flow)
        self._uncork()

    cdef int forget(self, Flow flow) except -1:
        if self.flows.get(flow.cid) is flow:
            del self.flows[flow.cid]
        return 0

    cdef int withdraw(self, Flow flow) except -1:
        if flow.in_urgent:
            self._urgent.remove(flow)
            flow.in_urgent = False
        if flow.in_data:
            (self._short if flow in self._short else self._bulk if flow in self._bulk else self._capped).remove(flow)
            flow.in_data = False
        if flow.ack_waiting:
            self._acks.remove(flow)
            flow.ack_waiting = False
        return self.forget(flow)

    cdef int drop(self, Source source) except -1:
        cdef Lane lane = source
        if lane.in_data:
            (self._short if lane in self._short else self._bulk).remove(lane)
            lane.in_data = False
        if lane.owes:
            self._owing.remove(lane)
            lane.owes = False
        self._charge(-len(lane.queue), -lane.unsent_bytes)
        return lane.clear()

    cdef int _charge(self, Py_ssize_t frames, Py_ssize_t size) except -1:
        """So many relayed frames more, or less, wait here."""
        self.relay_frames += frames
        self.relay_bytes += size + FRAME_COST * frames
        self.ctx.relayed += size + FRAME_COST * frames
        return 0

    cdef int freed(self) except -1:
        if self._capped and self.inflight < self.max_inflight and self._writable and not self._corked and not self.closed:
            self._corked = True
            self._call_soon(self._uncork_callback)
        return 0

    cdef Py_ssize_t read_size(self) noexcept:
        """A chunk is a frame: while others wait, chunks are cut to a quantum as they are read."""
        return QUANTUM if len(self._bulk) + len(self._capped) > 1 or self._short else MAX_DATA

    cdef int set_writable(self, bint on) except -1:
        """The carrier holds bytes that the kernel did not take (False), or no longer (True)."""
        self._writable = on
        if on:
            self._blocked_since = -1.0
            if not self.closed:
                self._flush()
        else:
            self._blocked_since = self.ctx.clock()
        return 0

    def send(self, int type, bytes payload=b"", *, int code=0, uint64_t seq=0):
        """A frame of the link itself: HELLO, GOAWAY, AUTH, ANNOUNCE, PING."""
        cdef Header h
        if self.closed:
            return
        memset(&h, 0, sizeof(h))
        h.type = type
        h.code = code
        h.seq = seq
        h.epoch = self.epoch
        h.length = PyBytes_GET_SIZE(payload)
        self._control.append(build_frame(&h, <const uint8_t*>PyBytes_AS_STRING(payload)))
        self._frames_out[type] += 1
        if len(self._control) > self.queue_depth:
            self.fail(Reason.STALLED, "control frames pile up: the peer does not read")
        elif self._writable:
            self._flush()

    cdef int _answer(self, int type, const uint8_t* cid, uint64_t epoch, int code, uint64_t seq) except -1:
        """For a flow that is not ours, or cannot be, or has lost its way."""
        cdef Header h
        if self.closed:
            return 0
        memset(&h, 0, sizeof(h))
        h.type = type
        h.code = code
        h.epoch = epoch
        h.seq = seq
        memcpy(h.cid, cid, CID_SIZE)
        self._answers.append(build_frame(&h, NULL))
        self._frames_out[type] += 1
        if not self._corked:
            self._corked = True
            self._call_soon(self._uncork_callback)
        return 0

    cdef int _piece(self, bytes frame, Piece* pieces, list bases, int* count, Py_ssize_t* total) except -1:
        pieces[count[0]].p = <const uint8_t*>PyBytes_AS_STRING(frame)
        pieces[count[0]].n = PyBytes_GET_SIZE(frame)
        bases.append(frame)
        total[0] += PyBytes_GET_SIZE(frame)
        count[0] += 1
        return 0

    cdef bytes _flow_frame(self, Flow flow, int type):
        cdef Header h
        cdef bytes payload = b""
        flow.fill_header(&h, type)
        if type == M_OPEN:
            payload = flow.open_body
            h.ack = 0
        elif type == M_RESUME:
            payload = flow.secret if flow.sought is None else flow.secret + flow.sought
            flow.asks += 1
        elif type == M_RST:
            h.code = flow.rst_code
            h.ack = h.limit = 0
        h.length = PyBytes_GET_SIZE(payload)
        self._frames_out[type] += 1
        return build_frame(&h, <const uint8_t*>PyBytes_AS_STRING(payload))

    cdef int _gather_urgent(self, Flow flow, Piece* pieces, list bases, int* count, Py_ssize_t* total) except -1:
        if flow.pending & SEND_RST:
            if flow.pending & SEND_OPEN_ACK:
                self._piece(self._flow_frame(flow, M_OPEN_ACK), pieces, bases, count, total)
            flow.pending = 0
            return self._piece(self._flow_frame(flow, M_RST), pieces, bases, count, total)
        if flow.pending & SEND_OPEN:
            flow.pending &= ~SEND_OPEN
            self._piece(self._flow_frame(flow, M_OPEN), pieces, bases, count, total)
        if flow.pending & SEND_OPEN_ACK:
            flow.pending &= ~SEND_OPEN_ACK
            self._piece(self._flow_frame(flow, M_OPEN_ACK), pieces, bases, count, total)
        if flow.pending & SEND_RESUME:
            flow.pending &= ~SEND_RESUME
            self._piece(self._flow_frame(flow, M_RESUME), pieces, bases, count, total)
        if flow.pending & SEND_RESUME_ACK:
            flow.pending &= ~SEND_RESUME_ACK
            self._piece(self._flow_frame(flow, M_RESUME_ACK), pieces, bases, count, total)
        # not left to data that the in-flight cap may hold: two full directions would starve
        if flow.pending & SEND_ACK:
            self._piece(self._flow_frame(flow, M_ACK), pieces, bases, count, total)
        return 0

    cdef int _gather(self, Flow flow, Piece* pieces, list bases, int* count, Py_ssize_t* total, Py_ssize_t allowance) except -1:
        """Chunks of the flow within `allowance` bytes, then its end if that is due."""
        cdef Chunk chunk
        while flow.unsent is not None and count[0] < MAX_PIECES and self.inflight < self.max_inflight \
                and flow.unsent.size <= allowance:
            chunk = flow.take()
            if chunk is None:
                break
            allowance -= chunk.size
            pieces[count[0]].p = <const uint8_t*>PyBytes_AS_STRING(chunk.buf) + chunk.off - HEADER_SIZE
            pieces[count[0]].n = HEADER_SIZE + chunk.size
            bases.append(chunk.buf)
            total[0] += HEADER_SIZE + chunk.size
            count[0] += 1
            self._frames_out[<int>M_DATA] += 1
        # saved up only for a chunk larger than a turn: neither while the link's cap holds all, nor from a short
        # message's turn
        flow.deficit = allowance if allowance <= MAX_DATA and self.inflight < self.max_inflight else 0
        if flow.unsent is None and flow.resumed and count[0] < MAX_PIECES - 2:
            if flow.pending & SEND_FIN:
                flow.pending &= ~SEND_FIN
                flow.fin_sent = True
                self._piece(self._flow_frame(flow, M_FIN), pieces, bases, count, total)
                flow.maybe_done()        # it may have been acknowledged before, and was repeated for a relay
            if flow.pending & SEND_LATE_RST:
                flow.pending = 0
                self._piece(self._flow_frame(flow, M_RST), pieces, bases, count, total)
                flow.finish_end(flow.rst_code)
        return 0

    cdef int _flush(self) except -1:
        cdef Piece pieces[MAX_PIECES + 8]
        cdef int count
        cdef Py_ssize_t total, run, before
        cdef Flow flow
        cdef Source source
        cdef list bases
        while self._writable and not self.closed:
            if self._through_count:      # was here before all that is queued
                self._send_through()
                continue
            bases = []
            count = 0
            total = 0
            run = 0
            if self._pong_owed:
                self._pong_owed = False
                self._control.append(self._pong())
            while self._control and count < MAX_PIECES and total < MAX_BATCH:
                self._piece(self._control.popleft(), pieces, bases, &count, &total)
            while self._answers and count < MAX_PIECES and total < MAX_BATCH:
                self._piece(self._answers.popleft(), pieces, bases, &count, &total)
            while self._owing and count < MAX_PIECES and total < MAX_BATCH:
                self._piece(self._owed(self._owing.popleft()), pieces, bases, &count, &total)
            while self._urgent and count < MAX_PIECES:
                flow = self._urgent.popleft()
                flow.in_urgent = False
                self._gather_urgent(flow, pieces, bases, &count, &total)
                if not flow.in_data and (flow.unsent is not None or flow.pending) and flow.state != CLOSED:
                    self._enqueue(flow)
            while self._short and count < MAX_PIECES - 2 and total < MAX_BATCH and run < SHORT_RUN:
                source = self._short.popleft()
                if source.unsent_bytes > SHORT:      # has grown while it waited
                    self._bulk.append(source)
                    continue
                source.in_data = False
                before = total
                if isinstance(source, Lane):
                    self._gather_lane(<Lane>source, pieces, bases, &count, &total, SHORT)
                    run += total - before
                    continue
                flow = <Flow>source
                if flow.path is not self or self._holds(flow):
                    continue
                self._gather(flow, pieces, bases, &count, &total, NO_LIMIT)
                run += total - before
                if flow.unsent is not None or flow.pending & (SEND_FIN | SEND_LATE_RST):
                    self._requeue(flow)
            while count < MAX_PIECES - 2 and total < MAX_BATCH:
                if self._capped and self.inflight < self.max_inflight:
                    source = self._capped.popleft()
                elif self._bulk:
                    source = self._bulk.popleft()
                else:
                    break
                source.in_data = False
                if isinstance(source, Lane):
                    self._gather_lane(<Lane>source, pieces, bases, &count, &total, source.deficit + QUANTUM)
                    continue
                flow = <Flow>source
                if flow.path is not self or self._holds(flow):
                    continue
                self._gather(flow, pieces, bases, &count, &total, flow.deficit + QUANTUM)
                if flow.unsent is not None or flow.pending & (SEND_FIN | SEND_LATE_RST):
                    self._requeue(flow)
                else:
                    flow.deficit = 0
            if count == 0:
                return 0
            self.bytes_out += total
            self.carrier.send(pieces, bases, count, total)
        return 0

    cdef bint _holds(self, Flow flow) except -1:
        """Whether the in-flight cap holds the flow; then it waits, out of the way of relayed frames, and has not lost
        its turn."""
        if flow.unsent is None or self.inflight < self.max_inflight:
            return False
        flow.in_data = True
        self._capped.append(flow)
        return True

    cdef int _requeue(self, Flow flow) except -1:
        """A flow that has more to send goes to the back."""
        if not flow.resumed or flow.path is not self or flow.state == CLOSED:
            return 0                     # comes back by itself when it is resumed
        if flow.unsent is not None and flow.held():
            return 0                     # comes back with credit or an acknowledgement
        flow.in_data = True
        self._bulk.append(flow)
        return 0

    cdef bytes _pong(self):
        cdef Header h
        memset(&h, 0, sizeof(h))
        h.type = PONG
        h.seq = self._pong_seq
        h.epoch = self.epoch
        self._frames_out[<int>PONG] += 1
        return build_frame(&h, NULL)

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
                self._left = self._h.length
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
        flow = <Flow>self.flows.get(PyBytes_FromStringAndSize(<const char*>self._h.cid, CID_SIZE))
        if flow is not None and self._h.epoch != flow.epoch:
            return self._old_epoch()
        return flow

    def _old_epoch(self):
        self._stale = True
        self.stale_epoch += 1
        self._flow_noise(1)

    cdef int _flow_noise(self, int weight) except -1:
        if self.epoch:
            self._noise += weight
        return 0

    cdef int _asked(self, double at, uint64_t since) except -1:
        """A flow is asked for again; the last time it was at `at`, and `since` a byte."""
        if at >= 0 and self.ctx.clock() - at < 1.0 and self._h.ack <= since:
            self._flow_noise(ASKED)
        return 0

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
            flow.violation("past the limit")
            self._flow = None
        return 0

    cdef int _stranger(self) except -1:
        """A frame for a flow we do not have. Those of a flow that ended lately were on their way, and are counted; only
        M_RESUME and M_OPEN_ACK show that the peer still has the flow. The sender of others is told, and makes noise. A
        flow that another hub may ask for in a moment is to wait; one that waits may be told here that it does so in
        vain."""
        cdef bytes cid
        cdef Flow flow
        cdef int type = self._h.type
        if self._stale:
            return 0
        cid = PyBytes_FromStringAndSize(<const char*>self._h.cid, CID_SIZE)
        flow = <Flow>self.ctx.flows.get(cid)
        if flow is not None and type == M_RST and flow.left is self and self._h.epoch == flow.epoch:
            # it waits because of what was said here, and there is nothing to wait for
            return flow.on_rst(self._h.code)
        if flow is not None and type != M_RESUME:
            self.stale_epoch += 1        # it has another way now, and this is what was still on the old one
            return 0
        if type != M_RESUME and type != M_RST and type != M_DETACH and type != M_GAP and self.ctx.closed.last(cid) is None \
                and self.handler.foreign(cid):
            self._flow_noise(1)
            if type != M_OPEN_ACK and (cid in self._told or len(self._told) >= TOLD):
                return 0                 # told already: this was on its way
            if len(self._told) < TOLD:
                self._told.add(cid)
            return self._answer(M_DETACH, self._h.cid, self._h.epoch, R_LINK_LOST, 0)
        if type == M_RESUME or type == M_OPEN_ACK:
            if self._free_resumes > 0:   # after a restart of ours a peer asks for many at once
                self._free_resumes -= 1
            else:
                self._noise += 1
            return self._answer(M_RST, self._h.cid, self._h.epoch, R_UNKNOWN_FLOW, 0)
        if self.ctx.closed.last(cid) is not None:
            self.ctx.duplicates += 1
            return 0
        self._flow_noise(1)
        if (type == M_DATA or type == M_FIN) and cid not in self._told and len(self._answers) < self.queue_depth:
            return self._answer(M_RST, self._h.cid, self._h.epoch, R_UNKNOWN_FLOW, 0)
        return 0

    cdef int _dispatch(self, const uint8_t* body, Py_ssize_t n) except -1:
        """A whole frame other than M_DATA."""
        cdef Flow flow
        cdef Lane lane
        cdef int type = self._h.type
        if type == M_ACK or type == M_FIN or type == M_RST or type == M_OPEN_ACK or type == M_RESUME_ACK or type == M_DETACH \
                or type == M_GAP:
            flow = self._find()
            if flow is None:
                lane = self._find_lane()
                return self._stranger() if lane is None else self._relay_control(lane)
            if type == M_ACK:
                if self._h.ack <= flow.snd_una and self._h.limit <= flow.snd_limit:
                    self._flow_noise(1)  # says nothing new
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
            elif type == M_DETACH:
                flow.detach()
                flow.left = self
                if self._h.code == R_STALE_EPOCH:
                    self.handler._on_frame__stale(flow.cid, self._h.seq)
            elif type == M_GAP:
                self._flow_noise(1)
                flow.gap(True)
            elif flow.resumed and not flow.asked_again:
                # both ends may have asked at once, and then the other's question was our answer
                if flow.asks:
                    flow.asks -= 1
                else:
                    self._flow_noise(100)        # an answer that nobody asked for would have everything sent again
                flow.on_ack(self._h.ack, self._h.limit)
            else:
                if flow.asks:
                    flow.asks -= 1
                flow.far_rtt = far_rtt(&self._h)
                flow.resume(self, self._h.ack, self._h.limit, False)
            return 0
        if type == PING:
            self._pong_owed = True
            self._pong_seq = self._h.seq
            self._noise += 1
            return self._flush()
        if type == PONG:
            if self._ping_sent >= 0 and self._h.seq == self._ping_seq:
                self.rtt = self.ctx.clock() - self._ping_sent
                self._ping_sent = -1.0
                self.handler.link_rtt(self, self.rtt)
            else:
                self._noise += 1
            return 0
        payload = PyBytes_FromStringAndSize(<const char*>body, n) if n else b""
        if type == M_OPEN or type == M_RESUME:
            self._stale = False
            if self._h.epoch != self.epoch and self.epoch:
                self._old_epoch()
                if len(self._answers) < self.queue_depth:
                    self._answer(M_RST, self._h.cid, self._h.epoch, R_STALE_EPOCH, 0)
                return 0
            cid = PyBytes_FromStringAndSize(<const char*>self._h.cid, CID_SIZE)
            if type == M_OPEN:
                self.handler._on_frame__open(cid, self._h.epoch, self._h.limit, payload)
                if cid in self.flows:
                    (<Flow>self.flows[cid]).far_rtt = far_rtt(&self._h)
            else:
                flow = self.flows.get(cid)
                if flow is not None and flow.resumed and flow.state > OPENING_FIN:
                    self._asked(flow.asked_at, flow.asked_from)
                    flow.asked_at = self.ctx.clock()
                    flow.asked_from = self._h.ack
                elif flow is None and cid in self.lanes:
                    lane = <Lane>self.lanes[cid]
                    self._asked(lane.asked_at, lane.asked_from)
                    lane.asked_at = self.ctx.clock()
                    lane.asked_from = self._h.ack
                if not self.handler._on_frame__resume(cid, self._h.epoch, payload, self._h.ack, self._h.limit):
                    self._stranger()
                elif cid in self.flows:
                    (<Flow>self.flows[cid]).far_rtt = far_rtt(&self._h)
        elif type == HELLO:
            self.handler._on_frame__hello(payload)
        elif type == HELLO_ACK:
            self.handler._on_frame__hello_ack(payload)
        elif type == GOAWAY:
            self._noise += 10
            self.handler._on_frame__goaway(reason_of(self._h.code))
        elif type == AUTH:
            self._noise += 10
            self.handler._on_frame__auth(self._h.code, payload)
        else:
            self._noise += 10
            self.handler._on_frame__announce(payload)
        return 0

    def refuse(self, bytes cid not None, int code, uint64_t epoch=0):
        """Answers an open or resume that cannot be; `epoch` is the frame's, 0 the link's."""
        if len(self._told) < TOLD:
            self._told.add(cid)          # what follows the open is on its way, and needs no answer
        self._answer(M_RST, <const uint8_t*>PyBytes_AS_STRING(cid), epoch if epoch else self.epoch, code, 0)

    def tell_detached(self, bytes cid not None, uint64_t epoch, int code, uint64_t newest=0):
        """Tells an end of a flow that the way beyond this hub is lost: `code` says why, `newest` is the epoch that a
        stale one lost against."""
        self._answer(M_DETACH, <const uint8_t*>PyBytes_AS_STRING(cid), epoch, code, newest)

    def forward(self, Lane lane not None, int type, bytes payload, *, uint64_t ack=0, uint64_t limit=0, double rtt=0.0):
        """Sends on M_OPEN or M_RESUME, which came in by another link with a round trip of `rtt` seconds. False: it was
        dropped. Raises ValueError for a payload that no frame may have."""
        cdef Header h
        cdef bytes frame
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
        passed = self._pass_on(lane, type, <const uint8_t*>PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), frame, None)
        self._send_through()
        if passed and lane.relay is not None and lane.relay.saw(lane, type, 0, ack, limit):
            self._relay_over(lane)
        return passed

    # relayed frames: in by one link, out by another, looked at but not taken apart

    cdef Lane _find_lane(self):
        """The relayed flow of the header, if it comes in here and the frame is of its epoch."""
        cdef Lane lane
        if self._stale or not self.lanes:
            return None
        lane = <Lane>self.lanes.get(PyBytes_FromStringAndSize(<const char*>self._h.cid, CID_SIZE))
        if lane is not None and self._h.epoch != lane.epoch:
            return self._old_epoch()
        return lane

    cdef int _relay_data(self, uint8_t* p, Py_ssize_t n) except -1:
        """`n` bytes of payload at p leave as a frame of their own: the very frame, if all of it is here."""
        cdef Lane lane = self._lane
        cdef Link out = <Link>lane.out
        cdef Header h = self._h
        cdef bytes frame
        cdef bint passed
        h.seq = self._at
        h.length = n
        self._at += n
        if out is None:
            self.drops_away += 1
            return 0
        if lane.queue or not out._writable:
            out._owe(lane, h.ack, h.limit)             # also if the frame itself is dropped
        if self._header_at is not NULL and self._header_at + HEADER_SIZE == p:
            if n != self._left:
                write_header(self._header_at, &h)
            passed = out._pass_on(lane, M_DATA, self._header_at, HEADER_SIZE + n, None, self)
        else:
            frame = build_frame(&h, p)
            passed = out._pass_on(lane, M_DATA, <const uint8_t*>PyBytes_AS_STRING(frame), HEADER_SIZE + n, frame, self)
        if passed and lane.relay is not None and lane.relay.saw(lane, M_DATA, h.seq, h.ack, h.limit):
            self._relay_over(lane)
        return 0

    cdef int _relay_control(self, Lane lane) except -1:
        cdef Link out = <Link>lane.out
        cdef int type = self._h.type
        cdef bytes frame
        cdef bint passed
        if type == M_ACK:
            self._flow_noise(self._h.ack <= lane.ack and self._h.limit <= lane.limit)
        elif type == M_FIN:
            self._flow_noise(lane.ended)
        elif type == M_OPEN_ACK:
            self._flow_noise(lane.relay.opened)
        elif type != M_RST:
            self._flow_noise(1)
        if type == M_OPEN_ACK or type == M_RESUME_ACK:
            self._h.seq = <uint64_t>(self.rtt * 1e6)
            self._header_at = NULL
        if out is None:
            self.drops_away += 1
            passed = type == M_RST       # there is nobody to tell
        elif type == M_ACK and self._h.ack and (lane.queue or not out._writable):
            passed = not out.closed
            out._owe(lane, self._h.ack, self._h.limit)
        elif self._header_at is not NULL:
            passed = out._pass_on(lane, type, self._header_at, HEADER_SIZE, None, self)
        else:
            frame = build_frame(&self._h, NULL)
            passed = out._pass_on(lane, type, <const uint8_t*>PyBytes_AS_STRING(frame), HEADER_SIZE, frame, self)
        # an end counts although it was dropped: it may have arrived before, and then nobody asks for it; nor does
        # whoever has no flow any more to resume
        if (passed or type == M_FIN or type == M_RESUME_ACK) and lane.relay is not None and lane.relay.saw(
                lane, type, self._h.seq, self._h.ack if passed else 0, self._h.limit if passed else 0):
            self._relay_over(lane)
        if type == M_DETACH and self._h.code == R_STALE_EPOCH:
            self.handler._on_frame__stale(lane.cid, self._h.seq)
        return 0

    cdef int _relay_over(self, Lane lane) except -1:
        self.ctx.closed.record(lane.cid, lane.end)
        lane.relay.forget()
        return 0

    cdef bint _pass_on(self, Lane lane, int type, const uint8_t* p, Py_ssize_t n, bytes base, Link source) except -1:
        """A whole frame for this link, from `source`'s read (then it leaves at the end of that read, in one write with
        the others, and without a base it is not copied) or from nowhere. What finds the link blocked waits, within
        bounds; beyond them it is dropped, the receiver is told afterwards, and the flow resumes. One short frame of
        each direction always has room: the bulk of others must not keep a flow from opening. False: dropped."""
        if self._answers and self._writable:
            self._flush()                # one of them may be for this very flow, and was first
        if (self._through_count == MAX_PIECES or self._through_total + n > MAX_THROUGH) and self._writable:
            self._send_through()
        if self.closed:
            self.drops_away += 1
            return False
        if type == M_RST:
            lane.lossy = False           # nothing to be asked for any more
        elif lane.lossy and type != M_RESUME:
            self.drops_queue += 1
            return False
        if self._writable and not lane.queue:
            if self._through_count and base is None and self._through_bases[self._through_count - 1] is None \
                    and self._through[self._through_count - 1].p + self._through[self._through_count - 1].n == p:
                self._through[self._through_count - 1].n += n
            else:
                if base is None and self.ctx.retains:
                    base = PyBytes_FromStringAndSize(<const char*>p, n)
                    p = <const uint8_t*>PyBytes_AS_STRING(base)
                if self._through_count == 0 and source is not None:
                    source._touched.append(self)
                self._through[self._through_count].p = p
                self._through[self._through_count].n = n
                self._through_bases.append(base)
                self._through_count += 1
            self._through_total += n
            self._frames_out[type] += 1
            return True
        if type == M_RESUME:             # never dropped: without it nothing of the flow moves
            if lane.resume_waits:
                return True              # has more sent again, and that is enough
            lane.resume_waits = True
        elif type != M_RST and (lane.queue or n > HEADER_SIZE + SHORT) and (
                self.relay_frames >= self.queue_depth or self.relay_bytes + n + FRAME_COST > 2 * self.max_inflight
                or (lane.unsent_bytes >= SPARED and self.ctx.pressed())):
            self.drops_queue += 1
            lane.lossy = True
            if not lane.in_data:
                self._enqueue(lane)
            return False
        if base is None:
            base = PyBytes_FromStringAndSize(<const char*>p, n)
        lane.queue.append(base)
        lane.unsent_bytes += n
        self._charge(1, n)
        if not lane.in_data:
            self._enqueue(lane)
        if self._writable and not self._corked:
            self._corked = True
            self._call_soon(self._uncork_callback)
        return True

    cdef int _owe(self, Lane lane, uint64_t ack, uint64_t limit) except -1:
        """What a frame that has to wait acknowledges does not wait behind its flow's data: on a slow link that would
        take as long as the data does, and the far end would take the way for stalled. Acknowledgements are cumulative
        and about the other direction, so they may overtake, and the latest is enough."""
        # nothing was ever acknowledged: before M_OPEN_ACK there is no credit to tell of
        if self.closed or not ack:
            return 0
        if ack > lane.owed_ack:
            lane.owed_ack = ack
        elif limit <= lane.owed_limit:
            return 0
        if limit > lane.owed_limit:
            lane.owed_limit = limit
        if not lane.owes:
            lane.owes = True
            self._owing.append(lane)
            if self._writable and not self._corked:
                self._corked = True
                self._call_soon(self._uncork_callback)
        return 0

    cdef bytes _owed(self, Lane lane):
        cdef Header h
        lane.owes = False
        memset(&h, 0, sizeof(h))
        h.type = M_ACK
        h.epoch = lane.epoch
        h.ack = lane.owed_ack
        h.limit = lane.owed_limit
        memcpy(h.cid, PyBytes_AS_STRING(lane.cid), CID_SIZE)
        self._frames_out[<int>M_ACK] += 1
        return build_frame(&h, NULL)

    cdef int _send_through(self) except -1:
        cdef int count = self._through_count
        cdef Py_ssize_t total = self._through_total
        if count == 0:
            return 0
        bases, self._through_bases = self._through_bases, []
        self._through_count = 0
        self._through_total = 0
        self.bytes_out += total
        return self.carrier.send(self._through, bases, count, total)

    cdef int settle(self) except -1:
        """The carrier's read has been looked at, and its memory will be used again: what was passed on leaves now."""
        cdef Link out
        if self._touched:
            touched, self._touched = self._touched, []
            for out in touched:
                if not out.closed:
                    out._send_through()
        return 0

    cdef int _gather_lane(self, Lane lane, Piece* pieces, list bases, int* count, Py_ssize_t* total, Py_ssize_t allowance) except -1:
        """Waiting frames of a relayed direction within `allowance` bytes; behind the last of them, whether some were
        dropped."""
        cdef Header h
        cdef bytes frame
        cdef Py_ssize_t size
        cdef int type
        while lane.queue and count[0] < MAX_PIECES and total[0] < MAX_BATCH:
            frame = <bytes>lane.queue[0]
            size = PyBytes_GET_SIZE(frame)
            if size - HEADER_SIZE > allowance:
                break
            lane.queue.popleft()
            allowance -= size - HEADER_SIZE
            lane.unsent_bytes -= size
            self._charge(-1, -size)
            type = (<const uint8_t*>PyBytes_AS_STRING(frame))[0]
            self._frames_out[type] += 1
            if type == M_RESUME:
                lane.resume_waits = False
            self._piece(frame, pieces, bases, count, total)
        lane.deficit = 0
        if lane.queue:
            lane.deficit = allowance if allowance <= MAX_DATA else 0
            lane.in_data = True
            self._bulk.append(lane)
        elif lane.lossy and count[0] < MAX_PIECES:
            lane.lossy = False
            memset(&h, 0, sizeof(h))
            h.type = M_GAP
            h.epoch = lane.epoch
            memcpy(h.cid, PyBytes_AS_STRING(lane.cid), CID_SIZE)
            self._frames_out[<int>M_GAP] += 1
            self._piece(build_frame(&h, NULL), pieces, bases, count, total)
        elif lane.lossy:
            self._enqueue(lane)
        return 0

    # time and end

    def ping(self):
        """Sends a PING unless one is unanswered; `handler.link_rtt(link, seconds)` tells the round trip."""
        if self._ping_sent < 0:
            self._ping_seq += 1
            self._ping_sent = self._pinged_at = self.ctx.clock()
            self.send(PING, seq=self._ping_seq)

    def tick(self, double now, double interval, double timeout, double stall, double echo=0.0):
        """Keepalive and flood control; call about once a second. A ping goes every `interval` seconds, and at each tick
        of a busy link, since windows are tuned to the round trip under load. Any received byte proves life, silence for
        `timeout` ends the link, and so does a peer that takes nothing for `stall` (0: for ever), or one that is heard
        but does not answer a ping for `echo` (0: for ever): it does not hear us."""
        cdef int noise = self._noise
        cdef bint busy = self.bytes_in - self._bytes_at_tick > BUSY
        self._noise = 0
        self._told.clear()
        self._bytes_at_tick = self.bytes_in
        if self.closed:
            return
        if self._heard:
            self._heard = False
            self._last_heard = now
        if noise > NOISE + 4 * self.load:
            self.fail(Reason.FLOOD, f"{noise} frames without effect since the last tick")
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
        cdef Source source
        self.settle()                    # what came in before the end goes on, while its memory is still there
        for flow in self._urgent:
            flow.in_urgent = False
        self._urgent.clear()
        for queue in (self._short, self._bulk, self._capped):
            for source in queue:
                source.in_data = False
                if isinstance(source, Lane):
                    (<Lane>source).clear()
            queue.clear()
        for source in self._owing:
            (<Lane>source).owes = False
        self._owing.clear()
        self.ctx.relayed -= self.relay_bytes
        self.relay_frames = self.relay_bytes = 0
        self._through_count = 0
        self._through_total = 0
        self._through_bases = []
        self._touched = []
        self._lane = None
        for flow in self._acks:
            flow.ack_waiting = False
        self._acks.clear()
        self._control.clear()
        self._answers.clear()
        self._uncork_callback = None
        self._flow = None
        for flow in list(self.flows.values()):
            flow.detach()
        self.flows.clear()
        self.handler.link_ended(self, reason, detail)
