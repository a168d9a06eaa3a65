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

from libc.stdint cimport uint8_t, uint64_t

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from ncfast._frames cimport CID_SIZE, SECRET_SIZE
from ncfast.core.budget cimport Share
from ncfast.core.context cimport FlowContext
from ncfast.core.ends cimport (
    SEND_ACK, SEND_FIN, SEND_LATE_RST, SEND_OPEN, SEND_OPEN_ACK, SEND_RESUME, SEND_RESUME_ACK, SEND_RST, Path, Sink,
)
from ncfast.core.sending cimport SEGMENT, Sender

from ncfast.core.errors import BY_CODE as _BY_CODE
from ncfast.core.errors import RETRYABLE, Reason
from ncfast.core.states import FlowEvent, FlowState

# seconds without progress that a reset waits behind bytes for which the peer gives no credit
cdef double LATE_RST = 2.0

cdef double LONGEST_REST = 30.0    # seconds after which a flow is looked at although nothing happened and none is due

cdef int OPENING = FlowState.OPENING
cdef int OPENING_FIN = FlowState.OPENING_FIN
cdef int OPEN = FlowState.OPEN
cdef int HALF_LOCAL = FlowState.HALF_LOCAL
cdef int HALF_REMOTE = FlowState.HALF_REMOTE
cdef int CLOSING = FlowState.CLOSING
cdef int CLOSED = FlowState.CLOSED
cdef int ACCEPTED = FlowEvent.ACCEPTED
cdef int DONE = FlowEvent.DONE
cdef int RESET = FlowEvent.RESET

cdef int R_CLOSED = Reason.CLOSED
cdef int R_FLOW_CONTROL = Reason.FLOW_CONTROL
cdef int R_UNKNOWN_FLOW = Reason.UNKNOWN_FLOW

cdef dict REASONS = _BY_CODE
cdef object INTERNAL = Reason.INTERNAL


cdef object reason_of(int code):
    """As `ncfast.core.errors` has it."""
    return REASONS.get(code, INTERNAL)


cdef class Flow(Sender):
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

    @property
    def closed(self):
        return self.state == CLOSED

    @property
    def opening(self):
        return self.state == OPENING or self.state == OPENING_FIN

    @property
    def open_waits(self):
        """Hub: whether M_OPEN has not left by this path yet."""
        return (self.pending & SEND_OPEN) != 0

    @property
    def attached(self):
        return self.path is not None

    @property
    def resting(self):
        """Whether nothing of it is under way, and nothing has been for a round of timers."""
        return not self.watched

    cpdef bind(self, Sink sink):
        """Puts the flow under its socket."""
        self.sink = sink

    # opening

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
        self.end_by(code)

    cpdef int cut(self, int code) except -1:
        """Ends the flow at once, and nothing is brought to its end before: what it holds is free when this returns."""
        if self.state == CLOSED:
            return 0
        self.holds = False
        if self.sink is not None:
            self.sink.cut()
            self.sink = None
        return self.end_by(code)

    cdef int end_by(self, int code) except -1:
        """The peer gets M_RST, and the flow is over, also if a defect is in the way of that frame."""
        try:
            self.send_rst(code)
        finally:
            self.finish_end(code)
        return 0

    cdef int violation(self) except -1:
        self.reset(R_FLOW_CONTROL)
        return 0

    cdef int send_rst(self, int code) except -1:
        if self.path is not None:
            self.rst_code = code
            # an acceptance that is owed goes first: without it the hub would take the open for one the target never saw
            self.pending = SEND_RST | (self.pending & SEND_OPEN_ACK)
            self.path.submit(self)
        return 0

    cdef bint is_done(self) noexcept:
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

    cdef bint starves(self) except -1:
        """Whether a reset need not wait any more for what the socket had delivered before it."""
        return self.snd_limit <= self.snd_nxt and self.ctx.now() - self.since >= LATE_RST

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
        if not self.reading and self.sink is not None:
            self.sink.set_reading(False)               # and now a reset may be met
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
        if self.gap_waits and self.path is not None:
            self.ask_late(now)
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
