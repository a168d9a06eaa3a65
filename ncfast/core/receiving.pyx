"""The half of a flow that receives, from its path to its socket: in order, acknowledged, and within the credit that it
grants. The rules are those of `ncfast/core/flow.pyx`."""

from libc.stdint cimport uint8_t, uint64_t

from cpython.bytes cimport PyBytes_FromStringAndSize

from ncfast.core.context cimport PRESSED_WINDOW, FlowBase
from ncfast.core.ends cimport FULL_READ, SEND_ACK, SEND_RESUME, WAITS

from ncfast.core.states import FlowEvent, FlowState

cdef enum:
    ACK_EVERY = 4 * FULL_READ  # bytes received before an acknowledgement goes at once, at most
    GATHERED = 4096            # bytes; a longer piece of a link's read goes to its socket with the others of its flow

cdef double ASK_EVERY = 1.0    # seconds between two M_RESUMEs for the same lost frames: each has everything sent again

cdef int OPENING = FlowState.OPENING
cdef int OPENING_FIN = FlowState.OPENING_FIN
cdef int CLOSED = FlowState.CLOSED
cdef int REMOTE_FIN = FlowEvent.REMOTE_FIN


cdef class Receiver(FlowBase):

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

    cdef int on_drained(self) except -1:
        """The socket has taken bytes that had waited."""
        if self.state == CLOSED or self.sink is None:
            return 0
        self.set_backlog(self.sink.waiting())
        self.consider_ack()
        return self.maybe_done()

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
                self.gap_waits = True    # `Flow.check` asks
                return 0
            return self.ask_again()
        return 0

    cdef int ask_late(self, double now) except -1:
        """Asks, if it is no longer too early."""
        return self.ask_again() if now - self.gap_at >= ASK_EVERY else 0

    cdef int ask_again(self) except -1:
        self.gap_waits = False
        self.asked_again = True
        self.gap_at = self.ctx.now()
        self.gap_from = self.ack_value()
        self.pending |= SEND_RESUME
        return self.path.submit(self)

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
