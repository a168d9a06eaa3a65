"""What waits for a link's carrier, and in which order it leaves. Sans-I/O: bytes leave by the carrier, timers are asked
for through `call_later`, the end of a turn of the loop through `call_soon`.

The queues, in the order in which a flush serves them, and what bounds each:

    through   relayed frames of the read that is being looked at: MAX_PIECES of them, MAX_THROUGH bytes
    pong      the answer to the latest PING: one
    control   frames of the link itself: `queue_depth`; one more ends the link
    answers   M_RST and M_DETACH for flows that are not on this link, one for a frame of the peer's: MAX_ANSWERS, and
              they are in the budget; beyond, a peer that does not read is stalled, and another hub, which passes on
              what its agents ask for, gets none. To data and ends no more than `queue_depth` wait, and about a flow
              nobody is told twice between two ticks; who asks for what we do not have makes noise after FREE_RESUMES
    owing     relayed directions whose acknowledgements go ahead of their data: each once
    urgent    flows that owe a control frame: each once; what it owes is a bit of `pending` each
    short     flows and relayed directions whose unsent bytes fit in SHORT: each once, here or in the next two.
              SHORT_RUN bytes a write, then a turn of those behind: neither starves
    capped    flows that the in-flight cap held when their turn came: each once. The next in turn when there is room
    bulk      the others, by deficit round robin (Shreedhar and Varghese, SIGCOMM 1995) with a quantum of QUANTUM

`acks` and `short_acks` wait for time and not for the carrier: flows whose acknowledgement may ride on data for
ACK_DELAY, or for SHORT_ACK_DELAY while what it is about is short; then they are urgent. What a flow may have unsent is
its own business: READ_AHEAD of new bytes, and its window when a link was lost. The frames of all relayed directions
that wait here share one bound, `queue_depth` frames and two in-flight caps of bytes; beyond it only one short frame of
each direction, its M_RESUME and its M_RST still find room.

The first frame of an idle link leaves at once; what follows in the same turn of the loop leaves in one write at its
end, except whole large chunks, for which a write of their own costs nothing.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from ncfast.core.context cimport FlowContext
from ncfast.core.ends cimport (
    FULL_READ, SEND_ACK, SEND_FIN, SEND_LATE_RST, SEND_OPEN, SEND_OPEN_ACK, SEND_RESUME, SEND_RESUME_ACK, SEND_RST,
    URGENT, WAITS, WAITS_LONG, Path, Source,
)
from ncfast.core.fifo cimport Fifo
from ncfast.core.flow cimport Flow
from ncfast._frames cimport (
    CID_SIZE, HEADER_SIZE, M_ACK, M_DATA, M_FIN, M_GAP, M_OPEN, M_OPEN_ACK, M_RESUME, M_RESUME_ACK, M_RST, MAX_DATA,
    PONG, Chunk, Header, build_frame,
)
from ncfast.core.relay cimport Lane

from ncfast.core.states import FlowState

cdef enum:
    # bytes from which a write is full, about what TCP_NOTSENT_LOWAT lets the kernel hold unsent; with the frame that
    # fills it at most 227 KiB, so every peer must take messages of 256 KiB
    MAX_BATCH = 2 * FULL_READ
    MAX_THROUGH = 196608       # the same for relayed frames: with one frame more still no 256 KiB
    SHORT = 4096               # bytes; a flow with no more than this to send is a short message
    SHORT_RUN = 65536          # bytes of short messages before bulk gets a turn
    QUANTUM = 16384            # bytes of a bulk flow's turn, and the size of its reads while others wait
    LONELY = 8                 # turns of one frame in a row after which corking pauses
    PROBE = 16                 # then every so many frames it is tried again
    SPARED = 16384             # bytes of each relayed direction that wait although memory is short
    NO_LIMIT = 1 << 30

cdef double ACK_DELAY = 0.025  # seconds; below TCP's 40 ms, so that a chain of both does not add up
# seconds that the acknowledgement of no more than SHORT waits: no sender is held by so little, and an answer that comes
# meanwhile carries it (RFC 1122, section 4.2.3.2, bounds it by half a second)
cdef double SHORT_ACK_DELAY = 0.2

cdef int CLOSED = FlowState.CLOSED


cdef class Carrier:

    cdef int send(self, Piece* pieces, list bases, int count, Py_ssize_t total) except -1:
        """Sends the pieces in order, now; what the kernel does not take is kept by the carrier. `bases[i]` owns piece
        i."""
        raise NotImplementedError

    cdef int end(self, reason, str detail) except -1:
        raise NotImplementedError


cdef class Queues(Path):
    """The flows and relayed directions of one carrier, and what each has to send. A link adds what comes in."""

    def __init__(self, Carrier carrier not None, FlowContext ctx not None, call_soon, call_later, *,
                 Py_ssize_t max_inflight, int queue_depth):
        self.carrier = carrier
        self.ctx = ctx
        self._call_soon = call_soon
        self._call_later = call_later
        self.max_inflight = max_inflight
        self.queue_depth = queue_depth
        self.peer_window = ctx.window_initial
        self.flows = {}
        self.lanes = {}
        self._through_bases = []
        self._touched = []
        self._control = Fifo()
        self._answers = Fifo()
        self._owing = Fifo()
        self._urgent = Fifo()
        self._short = Fifo()
        self._capped = Fifo()
        self._bulk = Fifo()
        self._acks = Fifo()
        self._short_acks = Fifo()
        self._uncork_callback = self._uncork         # bound once, not at each write
        self._writable = True
        self._blocked_since = -1.0

    @property
    def writable(self):
        return self._writable

    @property
    def queued(self):
        """Control frames and flows that wait for the carrier."""
        return self._control.size + self._answers.size + self._owing.size + self._urgent.size + self._short.size \
            + self._capped.size + self._bulk.size + self.relay_frames

    @property
    def answer_bytes(self):
        """Bytes of memory that answers take which wait for the carrier."""
        return FRAME_COST * self._answers.size

    # flows and relayed directions

    cdef int adopt(self, Source source) except -1:
        cdef Flow flow = <Flow>source
        self.flows[flow.cid] = self._latest = flow
        return 0

    cdef int forget(self, Source source) except -1:
        cdef Flow flow = <Flow>source
        if self._latest is flow:
            self._latest = None
        if self.flows.get(flow.cid) is flow:
            del self.flows[flow.cid]
        return 0

    cdef int withdraw(self, Source source) except -1:
        cdef Flow flow = <Flow>source
        if flow.in_urgent:
            self._urgent.remove(flow)
            flow.in_urgent = False
        if flow.in_data:
            self._short.remove(flow) or self._bulk.remove(flow) or self._capped.remove(flow)
            flow.in_data = False
        flow.ack_waiting = 0             # its place in the queue is nobody's
        return self.forget(flow)

    cdef int drop(self, Source source) except -1:
        cdef Lane lane = source
        if lane.in_data:
            self._short.remove(lane) or self._bulk.remove(lane)
            lane.in_data = False
        if lane.owes:
            self._owing.remove(lane)
            lane.owes = False
        self._charge(-lane.queue.size, -lane.unsent_bytes)
        return lane.clear()

    # turns

    cdef int submit(self, Source source) except -1:
        cdef Flow flow = <Flow>source
        cdef bint idle
        if self.closed:
            return 0
        if flow.pending & URGENT:
            if not flow.in_urgent:
                flow.in_urgent = True
                self._urgent.push(flow)
            if flow.pending & SEND_OPEN:
                return self._gather_turn()
        elif not flow.in_data and (flow.unsent is not None or flow.pending):
            idle = self._short.size + self._bulk.size + self._capped.size + self._urgent.size + self._control.size == 0
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
            self._short.push(source)
        else:
            self._bulk.push(source)
        return 0

    cdef int _requeue(self, Flow flow) except -1:
        """A flow that has more to send goes to the back."""
        if not flow.resumed or flow.path is not self or flow.state == CLOSED:
            return 0                     # comes back by itself when it is resumed
        if flow.unsent is not None and flow.held():
            return 0                     # comes back with credit or an acknowledgement
        flow.in_data = True
        self._bulk.push(flow)
        return 0

    cdef bint _holds(self, Flow flow) except -1:
        """Whether the in-flight cap holds the flow; then it waits, out of the way of relayed frames, and has not lost
        its turn."""
        if flow.unsent is None or self.inflight < self.max_inflight:
            return False
        flow.in_data = True
        self._capped.push(flow)
        return True

    cdef int freed(self) except -1:
        if self._capped.size and self.inflight < self.max_inflight and self._writable and not self._corked \
                and not self.closed:
            self._corked = True
            self._call_soon(self._uncork_callback)
        return 0

    cdef Py_ssize_t read_size(self) noexcept:
        """A chunk is a frame: while others wait, chunks are cut to a quantum as they are read."""
        return QUANTUM if self._bulk.size + self._capped.size > 1 or self._short.size else FULL_READ

    cdef int _gather_turn(self) except -1:
        """What is queued leaves behind the batch of clients that is coming in, or at the end of this turn: an open goes
        with what its client has said."""
        if not self._corked:
            self._corked = True
            if self.ctx.corked is not None:
                self.ctx.corked.append(self)
            else:
                self._call_soon(self._uncork_callback)
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
        self.uncork()

    cdef int uncork(self) except -1:
        self._corked = False
        if self._urgent.size + self._short.size + self._bulk.size + self._capped.size + self._control.size \
                + self._answers.size + self._owing.size:
            self._lonely = 0
            if not self.closed:
                self._flush()
        else:
            self._lonely += 1
        return 0

    cdef int ack_soon(self, Source source) except -1:
        cdef Flow flow = <Flow>source
        # Nothing is acknowledged yet, or something was repeated: its sender may wait for this. And all that wait long
        # together leave half of the cap of bytes in flight, the far end has about ours, to those that move.
        if not flow.rcv_acked or flow.ack_value() - flow.rcv_acked > SHORT \
                or SHORT * self._short_acks.size > self.max_inflight // 2:
            if flow.ack_waiting != WAITS:
                flow.ack_waiting = WAITS
                flow.ack_mark = flow.rcv_acked
                self._acks.push(flow)
                if not self._ack_timer:
                    self._ack_timer = True
                    self._call_later(ACK_DELAY, self._send_acks)
        elif not flow.ack_waiting:
            flow.ack_waiting = WAITS_LONG
            flow.ack_mark = flow.rcv_acked
            self._short_acks.push(flow)
            if not self._short_ack_timer:
                self._short_ack_timer = True
                self._call_later(SHORT_ACK_DELAY, self._send_short_acks)
        return 0

    def _send_acks(self):
        self._ack_timer = False
        self._acknowledge(self._acks, WAITS)

    def _send_short_acks(self):
        self._short_ack_timer = False
        self._acknowledge(self._short_acks, WAITS_LONG)

    cdef int _acknowledge(self, Fifo queue, int where) except -1:
        cdef Flow flow
        cdef Py_ssize_t left = queue.size          # those that come meanwhile wait for the next time
        if self.closed:
            return 0
        self._corked = True
        while left > 0 and queue.size:
            left -= 1
            flow = queue.pop()
            if flow.path is not self or flow.ack_waiting != where:
                continue
            flow.ack_waiting = 0
            if flow.state == CLOSED or flow.ack_value() == flow.rcv_acked:
                continue
            if flow.rcv_acked != flow.ack_mark:
                self.ack_soon(flow)      # its own data carried one meanwhile, and is likely to carry the next
            else:
                flow.pending |= SEND_ACK
                self.submit(flow)
        return self.uncork()

    cdef int set_writable(self, bint on) except -1:
        """The carrier holds bytes that the kernel did not take (False), or no longer (True)."""
        self._writable = on
        if on:
            self._blocked_since = -1.0
            if not self.closed:
                self._flush()
        else:
            self._blocked_since = self.ctx.now()
        return 0

    # frames

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

    cdef bytes _pong(self):
        cdef Header h
        memset(&h, 0, sizeof(h))
        h.type = PONG
        h.seq = self._pong_seq
        h.epoch = self.epoch
        self._frames_out[<int>PONG] += 1
        return build_frame(&h, NULL)

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

    cdef int _piece(self, bytes frame, Piece* pieces, list bases, int* count, Py_ssize_t* total) except -1:
        pieces[count[0]].p = <const uint8_t*>PyBytes_AS_STRING(frame)
        pieces[count[0]].n = PyBytes_GET_SIZE(frame)
        bases.append(frame)
        total[0] += PyBytes_GET_SIZE(frame)
        count[0] += 1
        return 0

    # writes

    cdef int _flush(self) except -1:
        cdef Piece pieces[MAX_PIECES + 8]
        cdef int count
        cdef Py_ssize_t total
        cdef list bases
        defect = None
        while self._writable and not self.closed:
            if self._through_count:      # was here before all that is queued
                self._send_through()
                continue
            bases = []
            count = 0
            total = 0
            try:
                self._gather_write(pieces, bases, &count, &total)
            except Exception as exc:     # of one flow: frames of others were taken already, or are next
                defect = exc
                if count == 0:
                    continue
            if count == 0:
                break
            self.bytes_out += total
            self.carrier.send(pieces, bases, count, total)
        if defect is not None:
            raise defect
        return 0

    cdef int _gather_write(self, Piece* pieces, list bases, int* count, Py_ssize_t* total) except -1:
        """What leaves next, in one write."""
        cdef Py_ssize_t run = 0, before
        cdef Flow flow
        cdef Source source
        if self._pong_owed:
            self._pong_owed = False
            self._control.push(self._pong())
        while self._control.size and count[0] < MAX_PIECES and total[0] < MAX_BATCH:
            self._piece(self._control.pop(), pieces, bases, count, total)
        while self._answers.size and count[0] < MAX_PIECES and total[0] < MAX_BATCH:
            self._piece(self._answers.pop(), pieces, bases, count, total)
            self.ctx.relay(-FRAME_COST)
        while self._owing.size and count[0] < MAX_PIECES and total[0] < MAX_BATCH:
            self._piece(self._owed(self._owing.pop()), pieces, bases, count, total)
        while self._urgent.size and count[0] < MAX_PIECES:
            flow = self._urgent.pop()
            flow.in_urgent = False
            self._gather_urgent(flow, pieces, bases, count, total)
            if not flow.in_data and (flow.unsent is not None or flow.pending) and flow.state != CLOSED:
                self._enqueue(flow)
        while self._short.size and count[0] < MAX_PIECES - 2 and total[0] < MAX_BATCH and run < SHORT_RUN:
            source = self._short.pop()
            if source.unsent_bytes > SHORT:          # has grown while it waited
                self._bulk.push(source)
                continue
            source.in_data = False
            before = total[0]
            if isinstance(source, Lane):
                self._gather_lane(<Lane>source, pieces, bases, count, total, SHORT)
                run += total[0] - before
                continue
            flow = <Flow>source
            if flow.path is not self or self._holds(flow):
                continue
            self._gather(flow, pieces, bases, count, total, NO_LIMIT)
            run += total[0] - before
            if flow.unsent is not None or flow.pending & (SEND_FIN | SEND_LATE_RST):
                self._requeue(flow)
        while count[0] < MAX_PIECES - 2 and total[0] < MAX_BATCH:
            if self._capped.size and self.inflight < self.max_inflight:
                source = self._capped.pop()
            elif self._bulk.size:
                source = self._bulk.pop()
            else:
                break
            source.in_data = False
            if isinstance(source, Lane):
                self._gather_lane(<Lane>source, pieces, bases, count, total, source.deficit + QUANTUM)
                continue
            flow = <Flow>source
            if flow.path is not self or self._holds(flow):
                continue
            self._gather(flow, pieces, bases, count, total, flow.deficit + QUANTUM)
            if flow.unsent is not None or flow.pending & (SEND_FIN | SEND_LATE_RST):
                self._requeue(flow)
            else:
                flow.deficit = 0
        return 0

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

    cdef int _gather(self, Flow flow, Piece* pieces, list bases, int* count, Py_ssize_t* total,
                     Py_ssize_t allowance) except -1:
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

    cdef int _gather_lane(self, Lane lane, Piece* pieces, list bases, int* count, Py_ssize_t* total,
                          Py_ssize_t allowance) except -1:
        """Waiting frames of a relayed direction within `allowance` bytes; behind the last of them, whether some were
        dropped."""
        cdef Header h
        cdef bytes frame
        cdef Py_ssize_t size
        cdef int type
        while lane.queue.size and count[0] < MAX_PIECES and total[0] < MAX_BATCH:
            frame = <bytes>lane.queue.peek()
            size = PyBytes_GET_SIZE(frame)
            if size - HEADER_SIZE > allowance:
                break
            lane.queue.pop()
            allowance -= size - HEADER_SIZE
            lane.unsent_bytes -= size
            self._charge(-1, -size)
            type = (<const uint8_t*>PyBytes_AS_STRING(frame))[0]
            self._frames_out[type] += 1
            if type == M_RESUME:
                lane.resume_waits = False
            self._piece(frame, pieces, bases, count, total)
        lane.deficit = 0
        if lane.queue.size:
            lane.deficit = allowance if allowance <= MAX_DATA else 0
            lane.in_data = True
            self._bulk.push(lane)
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

    # relayed frames

    cdef bint _pass_on(self, Lane lane, int type, const uint8_t* p, Py_ssize_t n, bytes base, Queues source) except -1:
        """A whole frame for this link, from `source`'s read (then it leaves at the end of that read, in one write with
        the others, and without a base it is not copied) or from nowhere. What finds the link blocked waits, within
        bounds; beyond them it is dropped, the receiver is told afterwards, and the flow resumes. One short frame of
        each direction always has room: the bulk of others must not keep a flow from opening. False: dropped."""
        if self._answers.size and self._writable:
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
        if self._writable and not lane.queue.size:
            if self._through_count and base is None and self._through_bases[self._through_count - 1] is None \
                    and self._through[self._through_count - 1].p + self._through[self._through_count - 1].n == p:
                self._through[self._through_count - 1].n += n
            else:
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
        elif type != M_RST and (lane.queue.size or n > HEADER_SIZE + SHORT) and (
                self.relay_frames >= self.queue_depth or self.relay_bytes + n + FRAME_COST > 2 * self.max_inflight
                or (lane.unsent_bytes >= SPARED and self.ctx.share.is_pressed())):
            self.drops_queue += 1
            lane.lossy = True
            if not lane.in_data:
                self._enqueue(lane)
            return False
        if base is None:
            base = PyBytes_FromStringAndSize(<const char*>p, n)
        lane.queue.push(base)
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
            self._owing.push(lane)
            if self._writable and not self._corked:
                self._corked = True
                self._call_soon(self._uncork_callback)
        return 0

    cdef int _charge(self, Py_ssize_t frames, Py_ssize_t size) except -1:
        """So many relayed frames more, or less, wait here."""
        self.relay_frames += frames
        self.relay_bytes += size + FRAME_COST * frames
        self.ctx.relay(size + FRAME_COST * frames)
        return 0

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
        cdef Queues out
        defect = None
        try:
            self.ctx.settle()
        finally:
            if self._touched:
                touched, self._touched = self._touched, []
                for out in touched:
                    try:
                        if not out.closed:
                            out._send_through()
                    except Exception as exc:     # the others' would point into what is used again
                        defect = exc
        if defect is not None:
            raise defect
        return 0

    cdef int clear(self) except -1:
        """The carrier is gone, and nothing waits for it any more."""
        cdef Flow flow
        cdef Source source
        cdef Fifo queue
        while self._urgent.size:
            flow = self._urgent.pop()
            flow.in_urgent = False
        for queue in (self._short, self._bulk, self._capped):
            while queue.size:
                source = queue.pop()
                source.in_data = False
                if isinstance(source, Lane):
                    (<Lane>source).clear()
        while self._owing.size:
            source = self._owing.pop()
            (<Lane>source).owes = False
        self.ctx.relay(-(self.relay_bytes + <Py_ssize_t>(FRAME_COST * self._answers.size)))
        self.relay_frames = self.relay_bytes = 0
        self._through_count = 0
        self._through_total = 0
        self._through_bases = []
        self._touched = []
        self._acks.clear()
        self._short_acks.clear()
        self._control.clear()
        self._answers.clear()
        self._uncork_callback = None
        return 0
