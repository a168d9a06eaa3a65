"""One end of a flow: sequence, acknowledgement, windows, resume. Sans-I/O: no loop, no socket, no log.

Theory of operation. Bytes from the socket become `Chunk`s in one list, oldest first: acknowledged ones leave at the
head, `unsent` points at the first that the current path has not carried yet. A lost link moves `unsent` back to the
head; that is all there is to a replay. `seq` and `ack` count bytes as TCP's do, and the end of a direction takes one
number more, so an acknowledgement tells that the end has arrived too.

Credit, in rules:
 1. The receiver grants an absolute `limit`; the sender never reads more from its socket than the limit leaves.
 2. limit = delivered to the socket's kernel + window; it never goes back.
 3. The window starts at `window_initial`, or less where many flows share the budget, and doubles, up to `window_max`,
    whenever half of it was consumed in less than two round trips (the rule of quic-go's flow controller) and all
    windows together stay within half of the budget, or those of the flow's share within half of what is its own; while
    the share is pressed new credit shrinks to 16 KiB. An agent has to say beforehand (HELLO) what may be sent on any
    flow to come: no more than the budget allows to a thousand at once.
 4. An acknowledgement means: this process holds the byte, do not replay it. The agent acknowledges nothing before its
    target is connected, so that a failed open can be retried elsewhere from the first byte.
 5. What a path has carried and is not acknowledged counts against the path's `max_inflight`; a flow that ends or leaves
    gives back all of it.
 6. When a relay has dropped frames (M_RESUME on a path that goes on), half of what was in flight may be there from then
    on, and one segment more with each round trip, until it is a whole window again: RFC 5681's fast recovery and
    congestion avoidance. A relay's queue is small beside the windows of all flows that cross it, and each drop costs a
    round trip.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from ncfast._frames cimport (
    CID_SIZE, HEADER_SIZE, M_DATA, M_FIN, MAX_DATA, SECRET_SIZE, Chunk, DedupRing, Header, SegmentPool, write_header,
)

from ncfast.core.errors import BY_CODE as _BY_CODE
from ncfast.core.errors import RETRYABLE, Reason
from ncfast.core.states import FlowEvent, FlowState, advance
from ncfast.core.states import TRANSITIONS as _TRANSITIONS

cdef enum:
    READ_AHEAD = FULL_READ     # bytes read from a socket and not yet on a path; more stays in the kernel
    PRESSED_WINDOW = 16384     # window under memory pressure
    ACK_EVERY = 4 * FULL_READ  # bytes received before an acknowledgement goes at once, at most
    MIN_READ = 4096            # a paused socket is read again when at least this much may be read
    GATHERED = 4096            # bytes; a longer piece of a link's read goes to its socket with the others of its flow
    SEGMENT = 4096             # rule 6: what a round trip adds, and the least
    PROMISES = 1024            # flows of which a quarter of the budget holds what was promised beforehand
    START = 16                 # a window starts with no more than this part of what is left for windows
    COPIED = 16384             # a read of up to so many bytes costs no more memory than itself and a header

# seconds without progress that a reset waits behind bytes for which the peer gives no credit
cdef double LATE_RST = 2.0

cdef double ASK_EVERY = 1.0    # seconds between two M_RESUMEs for the same lost frames: each has everything sent again

cdef double ROUND = 0.5        # seconds: how fine resting flows are told apart, about a round of timers
cdef double LONGEST_REST = 30.0    # seconds after which a flow is looked at although nothing happened and none is due

cdef int OPENING = FlowState.OPENING
cdef int OPENING_FIN = FlowState.OPENING_FIN
cdef int OPEN = FlowState.OPEN
cdef int HALF_LOCAL = FlowState.HALF_LOCAL
cdef int HALF_REMOTE = FlowState.HALF_REMOTE
cdef int CLOSING = FlowState.CLOSING
cdef int CLOSED = FlowState.CLOSED
cdef int ACCEPTED = FlowEvent.ACCEPTED
cdef int LOCAL_FIN = FlowEvent.LOCAL_FIN
cdef int REMOTE_FIN = FlowEvent.REMOTE_FIN
cdef int DONE = FlowEvent.DONE
cdef int RESET = FlowEvent.RESET

cdef signed char NEXT[7][5]    # the table of transitions; -1 where it has no edge
for _state in FlowState:
    for _event in FlowEvent:
        NEXT[<int>_state][<int>_event] = _TRANSITIONS.get((_state, _event), -1)

cdef int R_CLOSED = Reason.CLOSED
cdef int R_FLOW_CONTROL = Reason.FLOW_CONTROL
cdef int R_INTERNAL = Reason.INTERNAL
cdef int R_OVERLOADED = Reason.OVERLOADED
cdef int R_UNKNOWN_FLOW = Reason.UNKNOWN_FLOW

cdef dict REASONS = _BY_CODE
cdef object INTERNAL = Reason.INTERNAL


cdef object reason_of(int code):
    """As `ncfast.core.errors` has it."""
    return REASONS.get(code, INTERNAL)


cdef class FlowContext:
    """Shared by all flows of a process.

    `clock()` gives seconds; `budget` bounds, in bytes, what is held for replay, for slow sockets and for links;
    `owner` is told `flow_closed(flow, reason)` once for each flow and `flow_resumed(flow)` each time that it goes on,
    and asked `flow_refused(flow, reason) -> bool` whether an open that the target never saw goes to another agent.
    """

    def __cinit__(self, clock, *, Py_ssize_t budget=1 << 30, Py_ssize_t window_initial=262144,
                  Py_ssize_t window_max=16777216, int ring=16384, uint64_t seed=0):
        self.pool = SegmentPool()
        self.closed = DedupRing(ring, seed)
        self.flows = {}
        self.passed = set()
        self._watched = {}
        self._resting = {}
        self._holders = []
        self.clock = clock
        self._clock = clock if isinstance(clock, Clock) else None
        self.budget = Budget(budget)
        self.share = self.budget.share()
        self.window_initial = window_initial
        self.window_max = window_max
        self.promise = min(window_initial, max(<Py_ssize_t>MAX_DATA, budget // (4 * PROMISES)))

    cdef double now(self) except? -1:
        return self.clock() if self._clock is None else self._clock.now()

    cdef Py_ssize_t first_window(self, Share share) noexcept:
        """The window that a flow starts with. All together stay within half of the budget, or of what is their share's
        own, but for the least of windows."""
        cdef Py_ssize_t left = max(self.budget.size // 2 - self.windows, share.own // 2 - share.windows)
        return max(<Py_ssize_t>PRESSED_WINDOW, min(self.window_initial, left // START))

    cdef int relay(self, Py_ssize_t size) except -1:
        """So many relayed bytes more, or less, wait for links."""
        self.relayed += size
        self.share.charge(size)
        return 0

    cdef int relieve(self, Flow asking) except -1:
        """The budget is spent by what came for `asking`: the heaviest share pays, with the flow that holds most. Rare,
        for it frees what that flow held."""
        cdef Share heaviest = self.budget.heaviest()
        cdef Flow flow, payer = asking
        cdef uint64_t size, most = 0
        for flow in self.flows.values():
            if flow.share is heaviest:
                size = flow.backlog + (flow.snd_nxt - flow.snd_una)
                if size > most:
                    most = size
                    payer = flow
        return payer.cut(R_OVERLOADED)

    cdef int hold(self, Flow flow, const uint8_t* p, Py_ssize_t n) except -1:
        """Bytes for the flow's socket, which stay where they are until the read is over."""
        if not flow.holds:
            flow.holds = True
            self._holders.append(flow)
        self._spans[self._span_count].p = p
        self._spans[self._span_count].n = n
        self._span_of[self._span_count] = <void*>flow
        self._span_count += 1
        if self._span_count == HELD:     # behind these bytes: it may end the flow, or fail
            self.settle()
            self.in_read = True
        return 0

    cdef int let_go(self, Flow flow) except -1:
        """What is held for the flow goes to its socket now, since something else is to follow there."""
        cdef Span spans[HELD]
        cdef int i, count = 0
        flow.holds = False
        for i in range(self._span_count):
            if self._span_of[i] == <void*>flow:
                self._span_of[i] = NULL
                spans[count] = self._spans[i]
                count += 1
        return flow.set_backlog(flow.sink.deliver_all(spans, count))

    cdef int settle(self) except -1:
        """The read is over, and its memory will be used again. A defect costs the flow whose bytes are lost by it."""
        cdef Flow flow
        defect = None
        self.in_read = False
        if self._holders:
            holders, self._holders = self._holders, []
            for flow in holders:
                if flow.holds:
                    try:
                        self.let_go(flow)
                        flow.delivered()
                    except Exception as exc:
                        defect = exc
                        flow.cut(R_INTERNAL)
            self._span_count = 0
        if defect is not None:
            raise defect
        return 0

    def due(self, double now):
        """The flows that a round of timers at `now` has to look at, in a list: call `check` of each. A flow of which
        nothing is under way rests until a timer of its own is due, so that thousands of idle ones cost nothing."""
        cdef Flow flow
        cdef int64_t latest = <int64_t>(now / ROUND)
        for at in [at for at in self._resting if at <= latest]:
            for flow in self._resting.pop(at):
                flow.watched = True
                self._watched[flow] = None
        return list(self._watched)

    cpdef cork(self):
        """A batch of clients comes in: what their flows have to say at once leaves with `uncork`, in one write."""
        if self.corked is None:
            self.corked = []

    def uncork(self):
        """After `cork`. Raises what a link has raised, when all have written."""
        cdef Path path
        failure = None
        corked, self.corked = self.corked, None
        if corked is not None:
            for path in corked:
                try:
                    path.uncork()
                except Exception as exc:     # the others would wait until something comes in on them
                    failure = exc
        if failure is not None:
            raise failure

    cdef int watch(self, Flow flow) except -1:
        """Something happens to a flow that rested."""
        self.leave(flow)
        self._watched[flow] = None
        flow.watched = True
        flow.una_since = flow.taken_since = self.now()       # as if it had been looked at all the time
        return 0

    cdef int rest(self, Flow flow, double until) except -1:
        self.leave(flow)
        flow.watched = False
        flow.round = <int64_t>(until / ROUND)
        resting = self._resting.get(flow.round)
        if resting is None:
            resting = self._resting[flow.round] = {}
        resting[flow] = None
        return 0

    cdef int leave(self, Flow flow) except -1:
        if flow.watched:
            self._watched.pop(flow, None)
        else:
            resting = self._resting.get(flow.round)
            if resting is not None:
                resting.pop(flow, None)
        return 0

    @property
    def held(self):
        """Bytes of memory held for replay, for slow sockets and for relays."""
        return self.pool.held + self.backlog + self.relayed


cdef class Sink:

    cdef Py_ssize_t deliver(self, const uint8_t* p, Py_ssize_t n) except -1:
        """Takes the bytes (copying what it cannot pass on at once); returns how many still wait for the socket."""
        raise NotImplementedError

    cdef Py_ssize_t deliver_all(self, Span* spans, int count) except -1:
        """The same of several pieces."""
        raise NotImplementedError

    cdef Py_ssize_t waiting(self) except -1:
        raise NotImplementedError

    cdef Py_ssize_t unread(self) except -1:
        """How many bytes the far machine has not taken, those in the kernel included."""
        raise NotImplementedError

    cdef int finish(self) except -1:
        """End of stream after what was delivered."""
        raise NotImplementedError

    cdef int set_reading(self, bint on) except -1:
        raise NotImplementedError

    cdef int release(self, bint reset) except -1:
        """The flow is over: reset the socket, or let it deliver what it has and close."""
        raise NotImplementedError

    cdef int cut(self) except -1:
        """The flow is cut: reset the socket, and let go of what waits there."""
        raise NotImplementedError


cdef class Path:

    cdef int adopt(self, Flow flow) except -1:
        """From now on frames of this cid on this path are the flow's."""
        raise NotImplementedError

    cdef int submit(self, Flow flow) except -1:
        """The flow owes its peer something."""
        raise NotImplementedError

    cdef int ack_soon(self, Flow flow) except -1:
        raise NotImplementedError

    cdef int forget(self, Flow flow) except -1:
        """Frames of the flow's cid are nobody's from now on; what the flow still owes is sent."""
        raise NotImplementedError

    cdef int withdraw(self, Flow flow) except -1:
        """The flow leaves for another path: nothing of it is sent here any more."""
        raise NotImplementedError

    cdef int drop(self, Source source) except -1:
        """What waits of a relayed direction is not sent."""
        raise NotImplementedError

    cdef int freed(self) except -1:
        """`inflight` has fallen: what the cap held back may go."""
        raise NotImplementedError

    cdef int uncork(self) except -1:
        """What was gathered leaves."""
        raise NotImplementedError

    cdef Py_ssize_t read_size(self) noexcept:
        return FULL_READ


cdef class Source:
    """What takes its turns on a link."""


cdef class Flow(Source):
    """One end of one client connection.

    The hub's end is made with the body of its M_OPEN and starts the open when it is first attached to a path; the
    agent's end is made from a received M_OPEN, with its `limit`, and calls `accept` when the target is connected.
    """

    def __cinit__(self, FlowContext ctx not None, bytes cid not None, bytes secret not None, bytes open_body=None,
                  info=None, uint64_t limit=0, Share share=None):
        if PyBytes_GET_SIZE(cid) != CID_SIZE or PyBytes_GET_SIZE(secret) != SECRET_SIZE:
            raise ValueError("cid and secret are 16 bytes each")
        self.ctx = ctx
        self.cid = cid
        self.secret = secret
        self.open_body = open_body
        self.info = info
        self.state = OPENING
        self.share = ctx.share if share is None else share
        self.window = ctx.first_window(self.share)
        ctx.windows += self.window
        self.share.windows += self.window
        ctx.live += 1
        self.snd_limit = limit if open_body is None else ctx.window_initial
        self.rcv_limit = self.window if open_body is not None else max(self.window, ctx.promise)
        self.reading = True
        self.since = self.una_since = self.tune_since = self.taken_since = ctx.now()
        self.detached_at = self.asked_due = self.gap_at = -1.0
        self.watched = True
        ctx._watched[self] = None

    # state

    cdef int move(self, int event) except -1:
        cdef int state = NEXT[self.state][event]
        if state < 0:
            advance(self.state, FlowEvent(event))      # says what is wrong
        self.state = state
        if not self.watched:
            self.ctx.watch(self)
        self.since = self.ctx.now()
        return 0

    @property
    def closed(self):
        return self.state == CLOSED

    @property
    def opening(self):
        return self.state == OPENING or self.state == OPENING_FIN

    @property
    def attached(self):
        return self.path is not None

    @property
    def resting(self):
        """Whether nothing of it is under way, and nothing has been for a round of timers."""
        return not self.watched

    # socket -> path

    cpdef bind(self, Sink sink):
        """Puts the flow under its socket."""
        self.sink = sink

    cdef Py_ssize_t room(self) noexcept:
        """How many bytes may be read from the socket now."""
        cdef Py_ssize_t size = FULL_READ, left
        if self.state == CLOSED or self.pending & SEND_FIN or self.fin_sent or self.snd_limit <= self.snd_nxt:
            return 0
        if self.unsent_bytes >= READ_AHEAD:
            return 0
        left = self.share.left()
        if left < self.ctx.pool.segment_size or self.share.is_pressed():
            if self.head is not None or left <= HEADER_SIZE:
                return 0
            size = min(<Py_ssize_t>COPIED, left - HEADER_SIZE)
        if self.path is not None:
            size = min(size, self.path.read_size())
        if self.snd_limit - self.snd_nxt < <uint64_t>size:
            size = self.snd_limit - self.snd_nxt
        return size

    cdef int push(self, Chunk chunk) except -1:
        """Bytes read from the socket."""
        self.ctx.bytes_read += chunk.size
        if self.state == CLOSED:
            self.ctx.discarded += chunk.size
            self.ctx.pool.release(chunk)
            return 0
        if not self.watched:
            self.ctx.watch(self)
        self.share.charge(self.ctx.pool.cost(chunk))
        chunk.seq = self.snd_nxt
        self.snd_nxt += chunk.size
        if self.head is None:
            self.head = chunk
        else:
            self.tail.next = chunk
        self.tail = chunk
        if self.unsent is None:
            self.unsent = chunk
        self.unsent_bytes += chunk.size
        if self.path is not None:
            self.path.submit(self)
        self.update_reading()
        return 0

    cpdef finish(self):
        """The socket's end of stream: this direction ends after what was pushed."""
        if self.state == CLOSED or self.fin_sent or self.pending & SEND_FIN:
            return
        self.pending |= SEND_FIN
        self.move(LOCAL_FIN)
        if self.path is not None:
            self.path.submit(self)

    cdef int update_reading(self) except -1:
        cdef Py_ssize_t room
        if self.sink is None:
            return 0
        room = self.room()
        if self.reading:
            if room <= 0:
                if not self.watched:
                    self.ctx.watch(self)
                self.reading = False
                self.sink.set_reading(False)
        elif room >= MIN_READ or (room > 0 and self.head is None):
            self.reading = True
            self.sink.set_reading(True)
        return 0

    cdef Chunk take(self):
        """The next chunk for the path, with its header written; None if there is none it may send."""
        cdef Chunk chunk = self.unsent
        cdef Header h
        cdef Py_ssize_t held
        if chunk is None or not self.resumed or self.held():
            return None
        if chunk.seq + chunk.size > self.snd_limit:    # read under another path's larger limit
            held = self.ctx.pool.held
            self.ctx.pool.split(chunk, self.snd_limit - chunk.seq)
            self.share.charge(self.ctx.pool.held - held)
            if chunk is self.tail:
                self.tail = chunk.next
        self.unsent = chunk.next
        self.unsent_bytes -= chunk.size
        self.inflight += chunk.size
        self.path.inflight += chunk.size
        if chunk.seq + chunk.size > self.snd_max:
            self.snd_max = chunk.seq + chunk.size
        self.fill_header(&h, M_DATA)
        h.length = chunk.size
        h.seq = chunk.seq
        write_header(chunk.frame(), &h)
        if not self.reading:
            self.update_reading()
        return chunk

    cdef bint held(self) noexcept:
        """What is unsent waits for the peer: for credit, or for an acknowledgement."""
        return self.unsent.seq >= self.snd_limit or (self.congestion and self.inflight >= self.congestion)

    cdef int fill_header(self, Header* h, int type) except -1:
        """A header of this flow, acknowledging what it has received."""
        h.type = type
        h.flags = 0
        h.code = 0
        h.length = 0
        h.epoch = self.epoch
        memcpy(h.cid, PyBytes_AS_STRING(self.cid), CID_SIZE)
        h.seq = self.snd_nxt if type == M_FIN else 0
        h.ack = self.rcv_acked = self.ack_value()
        h.limit = self.grant()
        self.pending &= ~SEND_ACK
        return 0

    cdef uint64_t ack_value(self) noexcept:
        if self.open_body is None and (self.state == OPENING or self.state == OPENING_FIN):
            return 0                     # rule 4
        return self.rcv_nxt + (1 if self.fin_received else 0)

    cdef uint64_t grant(self) except? 0:
        """Rules 2 and 3."""
        cdef uint64_t consumed = self.rcv_nxt - self.backlog
        cdef uint64_t limit
        cdef Py_ssize_t window = self.window
        cdef double now, rtt
        if self.state == CLOSED:
            return self.rcv_limit        # its window was given back already
        if consumed >= self.tune_from + <uint64_t>(window // 2):   # not a difference: a backlog moves `consumed` back
            now = self.ctx.now()
            rtt = self.path.rtt + self.far_rtt if self.path is not None else 0.0
            if window < self.ctx.window_max and self.may_grow() \
                    and now - self.tune_since < 4.0 * rtt * (consumed - self.tune_from) / window:
                window = min(window * 2, self.ctx.window_max)
                self.ctx.windows += window - self.window
                self.share.windows += window - self.window
                self.window = window
            self.tune_since = now
            self.tune_from = consumed
        if self.share.is_pressed():
            window = min(window, PRESSED_WINDOW)
        limit = consumed + window
        if limit > self.rcv_limit:
            self.rcv_limit = limit
        return self.rcv_limit

    cdef bint may_grow(self) noexcept:
        """Rule 3: whether there is memory for a window twice as large."""
        return self.ctx.windows + self.window <= self.ctx.budget.size // 2 \
            or self.share.windows + self.window <= self.share.own // 2

    # path -> socket

    cdef int violation(self) except -1:
        """The peer broke the flow's rules: the flow ends, and the link counts it."""
        self.reset(R_FLOW_CONTROL)
        return 0

    cdef int on_data(self, uint64_t seq, const uint8_t* p, Py_ssize_t n) except -1:
        cdef uint64_t end = seq + n
        if self.state == CLOSED:
            return 0
        if end > self.rcv_limit:
            return self.violation()
        if seq != self.rcv_nxt:
            if seq > self.rcv_nxt:
                return self.gap(False)
            self.ctx.duplicates += 1
            if end <= self.rcv_nxt:
                self.rcv_acked = 0       # whoever repeats has missed an acknowledgement
                return self.path.ack_soon(self)
            p += self.rcv_nxt - seq
            n = end - self.rcv_nxt
        if self.fin_received:
            return self.violation()    # bytes past the end
        if not self.watched:
            self.ctx.watch(self)
        self.asked_again = False
        self.rcv_nxt = end
        if self.state <= OPENING_FIN:
            if self.open_body is not None:
                self.accepted()          # the acknowledgement of the open was lost at a relay
            else:
                if self.early is None:
                    self.early = []
                self.early.append(PyBytes_FromStringAndSize(<const char*>p, n))
                self.set_backlog(self.backlog + n)
                return self.ctx.relieve(self) if self.share.is_spent() else 0
        if self.sink is None:
            return 0                     # our socket is gone, the reset to tell it waits behind our bytes
        self.ctx.bytes_in += n
        if self.ctx.in_read and (n > GATHERED or self.holds):
            return self.ctx.hold(self, p, n)
        self.set_backlog(self.sink.deliver(p, n))
        return self.delivered()

    cdef int delivered(self) except -1:
        if self.backlog and self.share.is_spent():
            self.ctx.relieve(self)
        if self.state == CLOSED:
            return 0
        return self.consider_ack()

    cdef int set_backlog(self, Py_ssize_t backlog) except -1:
        if <uint64_t>backlog > self.rcv_nxt:
            backlog = self.rcv_nxt       # the rest is a PROXY header, ours and not the flow's
        if backlog != self.backlog:
            self.ctx.backlog += backlog - self.backlog
            self.share.charge(backlog - self.backlog)
            self.backlog = backlog
        return 0

    cdef int consider_ack(self) except -1:
        """An acknowledgement now, soon, or with the next data."""
        cdef Py_ssize_t every = min(self.window // 5, ACK_EVERY)       # a full read of an initial window, too
        if self.path is None or not self.resumed:
            return 0
        if self.ack_value() - self.rcv_acked >= <uint64_t>every \
                or self.rcv_nxt - self.backlog + self.window >= self.rcv_limit + <uint64_t>(self.window // 2):
            self.pending |= SEND_ACK
            return self.path.submit(self)
        if self.ack_waiting != WAITS and self.ack_value() != self.rcv_acked:
            return self.path.ack_soon(self)
        return 0

    cdef int on_drained(self) except -1:
        """The socket has taken bytes that had waited."""
        if self.state == CLOSED or self.sink is None:
            return 0
        self.set_backlog(self.sink.waiting())
        self.consider_ack()
        return self.maybe_done()

    cdef int gap(self, bint told) except -1:
        """Frames were lost on the way (a relay dropped them): ask once to be sent from where we are. If the relay has
        `told` us, what it dropped may have been the answer to an earlier asking."""
        self.ctx.gaps += 1
        if not self.watched:
            self.ctx.watch(self)
        if self.open_body is None and self.state <= OPENING_FIN:
            self.gap_waits = True        # an M_RESUME would say that the target is connected
        elif (told or not self.asked_again) and self.path is not None:
            if self.ctx.now() - self.gap_at < ASK_EVERY and self.ack_value() <= self.gap_from:
                self.gap_waits = True    # `check` asks
                return 0
            return self.ask_again()
        return 0

    cdef int ask_again(self) except -1:
        self.gap_waits = False
        self.asked_again = True
        self.gap_at = self.ctx.now()
        self.gap_from = self.ack_value()
        self.pending |= SEND_RESUME
        return self.path.submit(self)

    cdef int on_ack(self, uint64_t ack, uint64_t limit) except -1:
        cdef Chunk chunk
        cdef Py_ssize_t held
        cdef bint progress = False
        if self.state == CLOSED:
            return 0
        if ack > self.snd_max + (1 if self.fin_sent else 0):
            return self.violation()    # acknowledges what was never sent
        if ack > self.snd_una:
            progress = True
            if self.congestion and self.unsent is not None:
                self.congestion += max(
                    1, SEGMENT * min(<Py_ssize_t>(ack - self.snd_una), self.congestion) // self.congestion)
                if self.snd_limit <= ack + <uint64_t>self.congestion:
                    self.congestion = 0
            self.snd_una = ack
            held = self.ctx.pool.held
            while self.head is not None and self.head.seq + self.head.size <= ack:
                chunk = self.head
                self.head = chunk.next
                if chunk is self.unsent:
                    self.unsent = chunk.next
                    self.unsent_bytes -= chunk.size
                else:
                    self.inflight -= chunk.size
                    if self.path is not None:
                        self.path.inflight -= chunk.size
                self.ctx.bytes_out += chunk.size
                self.ctx.pool.release(chunk)
            self.share.charge(self.ctx.pool.held - held)
            if self.head is None:
                self.tail = None
            if self.fin_sent and ack == self.snd_nxt + 1:
                self.fin_acked = True
        if limit > self.snd_limit:
            progress = True
            self.snd_limit = limit
        if not progress:
            return 0
        if not self.reading:
            self.update_reading()
        if self.path is not None:
            if self.unsent is not None or self.pending:
                self.path.submit(self)
            self.path.freed()
        return self.maybe_done()

    cdef int on_fin(self, uint64_t seq) except -1:
        if self.state == CLOSED or self.fin_received:
            if self.fin_received and self.path is not None:
                self.rcv_acked = 0
                self.path.ack_soon(self)
            return 0
        if seq < self.rcv_nxt:
            return self.violation()    # ends before what was sent
        if seq > self.rcv_nxt:
            return self.gap(False)
        self.fin_received = True
        if self.open_body is not None and self.state <= OPENING_FIN:
            self.accepted()
        if self.sink is not None and self.state > OPENING_FIN:
            self.deliver_fin()
        return 0

    cdef int deliver_fin(self) except -1:
        if self.holds:
            self.ctx.let_go(self)
        self.move(REMOTE_FIN)
        if self.is_done():
            self.pending |= SEND_ACK     # the far end waits for it, to be done
            return self.maybe_done()     # the socket is told of the end as it is released
        self.sink.finish()
        if self.state == CLOSED:
            return 0
        if self.fin_sent:
            if self.path is not None:
                self.pending |= SEND_ACK
                self.path.submit(self)   # the far end waits for it, to be done
        else:
            self.consider_ack()          # our own end has to come as well, and is likely to carry it
        return self.maybe_done()

    cdef int on_open_ack(self, uint64_t ack, uint64_t limit) except -1:
        """The target is connected."""
        if self.open_body is None:
            return self.violation()    # accepts what it asked for itself
        if self.state <= OPENING_FIN:
            self.accepted()
        return self.on_ack(ack, limit)

    cdef int accepted(self) except -1:
        self.move(ACCEPTED)
        self.pending &= ~SEND_OPEN
        self.open_body = b""             # is not sent again
        self.info.flow_opened(self)
        return 0

    cdef int on_rst(self, int code) except -1:
        cdef bint complete = self.fin_received
        if self.state == CLOSED:
            return 0
        reason = reason_of(code)
        if (self.state == OPENING or self.state == OPENING_FIN) and self.open_body is not None \
                and self.snd_una == 0 and self.rcv_nxt == 0 and reason in RETRYABLE:
            if self.ctx.owner.flow_refused(self, reason):
                return 0
        if complete and self.fin_acked or (complete and code == R_UNKNOWN_FLOW and self.fin_sent):
            code = R_CLOSED              # the peer was done before us: cleanup, not an error
        if self.holds:
            self.ctx.let_go(self)
        if self.sink is not None:
            self.sink.release(not complete)
            self.sink = None
        return self.finish_end(code)

    # opening

    cpdef accept(self):
        """Agent: the target is connected and `bind` was called; what came early goes to it."""
        cdef bytes piece
        self.move(ACCEPTED)
        if self.path is not None:
            self.pending |= SEND_OPEN_ACK
            self.path.submit(self)
        early, self.early = self.early, None
        if early is not None:
            backlog = 0
            for piece in early:
                self.ctx.bytes_in += PyBytes_GET_SIZE(piece)
                backlog = self.sink.deliver(<const uint8_t*>PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
                if self.state == CLOSED:
                    return
            self.set_backlog(backlog)
            self.consider_ack()
        if self.fin_received:
            self.deliver_fin()
        if self.gap_waits:
            self.gap_waits = False
            self.gap(True)

    cpdef direct(self, bytes body, bytes sought=None):
        """Hub: `body` is what M_OPEN says from now on, `sought` what M_RESUME says behind the secret; both name the
        agent to the hub that owns it."""
        self.open_body = body
        self.sought = sought

    def reopen(self):
        """Hub: forget the path that refused the open; everything is sent again on the next one."""
        self.detach()
        self.snd_max = 0
        self.detached_at = -1.0

    # paths

    def attach(self, Path path not None, *, bint resumed, uint64_t epoch=0, Py_ssize_t credit=0):
        """Puts the flow on a path, its frames under `epoch` (0: the path's own). With `resumed` data may follow at once
        (after M_OPEN, or after M_RESUME was exchanged); without, M_RESUME is sent and its answer waited for. `credit`
        is what the far end gives a new flow (0: what the path's peer does)."""
        self.put_on(path, resumed, epoch, credit)

    cdef int put_on(self, Path path, bint resumed, uint64_t epoch, Py_ssize_t credit) except -1:
        self.detach()
        if path is not self.left:
            self.asks = 0                # what was asked there before it told us to wait is answered yet
        self.left = None
        self.path = path
        path.adopt(self)
        self.epoch = epoch if epoch else path.epoch
        self.resumed = resumed or self.state <= OPENING_FIN    # an open itself goes (again), the far end knows the cid
        if self.resumed:
            self.detached_at = -1.0      # the grace runs until M_RESUME is answered
        self.asked_again = self.gap_waits = False
        self.congestion = 0
        self.una_since = self.since = self.ctx.now()
        if self.state <= OPENING_FIN:
            if self.open_body is not None:
                self.snd_limit = credit if credit else path.peer_window
                self.pending |= SEND_OPEN
        elif not resumed:
            self.pending |= SEND_RESUME
        if self.pending or self.unsent is not None:
            path.submit(self)
        return self.update_reading()

    def resume(self, Path path not None, uint64_t ack, uint64_t limit, bint answer, uint64_t epoch=0):
        """The peer has asked to go on from `ack` (`answer`), or has answered our own asking. The owner is told
        `flow_resumed(flow)` if the flow had lost its way, or takes another."""
        cdef bint moves = self.detached_at >= 0 or self.path is not path or (epoch != 0 and epoch != self.epoch)
        if self.state == CLOSED:
            return
        if self.open_body is not None and (self.state == OPENING or self.state == OPENING_FIN):
            self.accepted()              # the acknowledgement of the open was lost with the link
        self.on_ack(ack, limit)          # first: what the peer has is not sent again
        if self.state == CLOSED:
            return
        if self.path is not path or (epoch and epoch != self.epoch):
            self.detach()
            if answer:
                self.pending |= SEND_RESUME_ACK
            self.put_on(path, True, epoch, 0)
            self.ctx.owner.flow_resumed(self)
            return
        if not self.resumed:
            self.rewind()
            self.resumed = True
            self.detached_at = -1.0
            self.asked_again = self.gap_waits = False
            self.pending &= ~SEND_RESUME # not asked yet, and there is nothing left to ask
        elif answer:                     # a relay has dropped frames of ours
            self.congestion = max(<Py_ssize_t>SEGMENT, self.inflight // 2)
            self.rewind()
        else:                            # of the peer's, and they come again from here on
            self.asked_again = self.gap_waits = False
        if answer:
            self.pending |= SEND_RESUME_ACK
        if self.unsent is not None or self.pending:
            path.submit(self)
        self.consider_ack()              # for what came while M_RESUME was on its way
        if moves:
            self.ctx.owner.flow_resumed(self)

    cdef int rewind(self) except -1:
        """Everything unacknowledged is to be sent again."""
        cdef Chunk chunk
        cdef Py_ssize_t total = 0
        if not self.watched:
            self.ctx.watch(self)
        if self.path is not None:
            self.path.inflight -= self.inflight
            self.path.freed()
        self.inflight = 0
        self.unsent = self.head
        chunk = self.head
        while chunk is not None:
            total += chunk.size
            chunk = chunk.next
        self.unsent_bytes = total
        if self.fin_sent:
            # even if acknowledged: a relay on the new way must see it, to know when the flow is over
            self.pending |= SEND_FIN
        return 0

    cpdef detach(self):
        """The path is gone; the flow waits for another."""
        if self.path is None:
            return
        self.rewind()
        self.path.withdraw(self)
        self.path = None
        self.resumed = False
        self.pending &= SEND_FIN | SEND_LATE_RST
        self.since = self.ctx.now()
        if self.detached_at < 0:
            self.detached_at = self.since
        self.update_reading()

    # the end

    def reset(self, int code, *, bint behind=False):
        """Ends the flow now: the peer gets M_RST with `code`, the socket is reset.

        If our direction had already ended in order, the reset goes behind its bytes: a complete answer stays complete.
        So it does with `behind`, for a socket that was reset after bytes that it had delivered to us."""
        if self.state == CLOSED:
            return
        if self.holds:
            self.ctx.let_go(self)
        if self.sink is not None:
            self.sink.release(not self.fin_received)
            self.sink = None
        if self.path is not None and not self.pending & SEND_LATE_RST and not self.fin_acked \
                and (self.pending & SEND_FIN or self.fin_sent or (behind and self.unsent is not None)):
            self.rst_code = code
            self.pending |= SEND_LATE_RST
            self.path.submit(self)
            return
        self.send_rst(code)
        self.finish_end(code)

    cpdef int cut(self, int code) except -1:
        """Ends the flow at once, and nothing is brought to its end before: what it holds is free when this returns."""
        if self.state == CLOSED:
            return 0
        self.holds = False
        if self.sink is not None:
            self.sink.cut()
            self.sink = None
        self.send_rst(code)
        return self.finish_end(code)

    cdef int send_rst(self, int code) except -1:
        if self.path is not None:
            self.rst_code = code
            # an acceptance that is owed goes first: without it the hub would take the open for one the target never saw
            self.pending = SEND_RST | (self.pending & SEND_OPEN_ACK)
            self.path.submit(self)
        return 0

    cdef bint is_done(self) noexcept:
        """Whether both directions have ended, and are acknowledged."""
        return self.state == CLOSING and self.fin_acked and self.backlog == 0 \
            and not (self.pending & SEND_FIN and self.path is not None)

    cdef int maybe_done(self) except -1:
        if self.is_done():
            if self.sink is not None:
                self.sink.release(False)
                self.sink = None
            if self.pending & SEND_ACK and self.path is not None:
                self.path.submit(self)
            self.move(DONE)
            return self.finish_end(R_CLOSED)
        return 0

    cdef int finish_end(self, int code) except -1:
        """Gives everything back; tells the owner once."""
        if self.state != CLOSED:
            self.move(RESET)
        self.drop_out()
        self.ctx.leave(self)
        self.watched = True              # of no round any more
        self.ctx.windows -= self.window
        self.share.windows -= self.window
        self.ctx.live -= 1
        self.pending &= ~(SEND_FIN | SEND_LATE_RST)    # nothing that waited behind the data is left to say
        self.early = self.left = None
        self.set_backlog(0)
        self.ctx.closed.record(self.cid, self.rcv_nxt + (1 if self.fin_received else 0))
        if self.path is not None:
            self.path.inflight -= self.inflight
            self.inflight = 0
            self.path.forget(self)
            self.path.freed()
        self.ctx.owner.flow_closed(self, reason_of(code))
        return 0

    cdef int drop_out(self) except -1:
        cdef Chunk chunk = self.head, after
        cdef Py_ssize_t held = self.ctx.pool.held
        while chunk is not None:
            after = chunk.next
            chunk.next = None
            self.ctx.discarded += chunk.size
            self.ctx.pool.release(chunk)
            chunk = after
        self.share.charge(self.ctx.pool.held - held)
        self.head = self.tail = self.unsent = None
        self.unsent_bytes = 0
        return 0

    # time

    cdef bint half_close_waits(self) except -1:
        """Whether a half-closed flow that makes no progress waits for a reader, and not for an end that was lost."""
        if self.sink is None:
            return False                 # there is nobody to wait for
        if self.state == HALF_LOCAL:
            return True                  # for a reader beyond, perhaps: only its own end knows
        if self.backlog or self.unsent is not None:
            return True
        # what the socket says is not read while the reader beyond gives no credit
        return self.state == HALF_REMOTE and (not self.reading or self.sink.unread() > 0)

    cdef bint quiet(self, double now) noexcept:
        """Whether nothing is under way, and nothing has been since the last look: `idle` and `first_byte` are all that
        may run out before something happens."""
        return self.state == OPEN and self.reading and self.path is not None and self.resumed and not self.gap_waits \
            and self.unsent is None and self.inflight == 0 and self.backlog == 0 and self.pending == 0 \
            and self.detached_at < 0 and self.since != now

    def check(self, double now, timeouts):
        """Which timer has run out at `now`: a Reason, or None. `timeouts` has the seconds: open, grace, half_close,
        and, each 0 for none, idle, first_byte, stall. A Reason.STALLED is the path's fault, not the flow's."""
        cdef uint64_t progress, taken
        cdef double asked_since          # the open, or its way was lost; -1 while it is held
        cdef double idle, until
        if self.state <= OPENING_FIN:
            asked_since = self.una_since if self.path is not None else self.detached_at
            if asked_since >= 0 and now - asked_since >= timeouts.open:
                return Reason.OPEN_TIMEOUT
            if self.path is None and self.detached_at >= 0 and now - self.detached_at >= timeouts.grace:
                return Reason.LINK_LOST
            return None
        if not self.reading:
            self.update_reading()                      # others may have left memory that it had found spent
        if self.sink is not None and self.backlog:
            self.set_backlog(self.sink.waiting())      # a slow reader tells only when it has taken nearly all
        progress = (self.snd_una + self.rcv_nxt + self.snd_nxt) << 1
        progress ^= <uint64_t>self.backlog
        if progress != self.seen:
            self.seen = progress
            self.since = now
        if self.snd_una != self.seen_una or self.inflight == 0:
            self.seen_una = self.snd_una
            self.una_since = now
        taken = self.rcv_nxt - self.backlog
        if taken != self.seen_taken or self.backlog == 0:
            self.seen_taken = taken
            self.taken_since = now
        if self.gap_waits and self.path is not None and now - self.gap_at >= ASK_EVERY:
            self.ask_again()
        if self.detached_at >= 0 and now - self.detached_at >= timeouts.grace:
            return Reason.LINK_LOST
        if timeouts.stall and self.path is not None and self.resumed and now - self.una_since >= timeouts.stall:
            return Reason.STALLED
        if self.pending & SEND_LATE_RST and not self.pending & SEND_FIN and not self.fin_sent \
                and now - self.since >= LATE_RST:
            return reason_of(self.rst_code)
        if self.ctx.reader_pause and self.backlog and self.sink is not None \
                and now - self.taken_since >= self.ctx.reader_pause:
            return Reason.READER_PAUSED
        if self.state >= HALF_LOCAL and now - max(self.since, self.asked_sink) >= timeouts.half_close:
            if not self.half_close_waits():
                return Reason.HALF_CLOSE_TIMEOUT
            self.asked_sink = now
            if self.ctx.reader_pause and now - self.since >= self.ctx.reader_pause and self.sink.unread():
                return Reason.READER_PAUSED
        if timeouts.first_byte and self.snd_nxt == 0 and self.open_body is not None \
                and now - self.since >= timeouts.first_byte:
            return Reason.FIRST_BYTE_TIMEOUT
        idle = timeouts.idle
        if idle and now - self.since >= idle:
            return Reason.IDLE_TIMEOUT
        if self.quiet(now):
            until = now + LONGEST_REST
            if idle:
                until = min(until, self.since + idle)
            if timeouts.first_byte and self.snd_nxt == 0 and self.open_body is not None:
                until = min(until, self.since + timeouts.first_byte)
            self.ctx.rest(self, until)
        return None
