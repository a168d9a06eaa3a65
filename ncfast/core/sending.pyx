"""The half of a flow that sends, from its socket to its path: what is read is kept until it is acknowledged. Each frame
acknowledges what was received as well, so it stands on the half that receives. The rules are those of
`ncfast/core/flow.pyx`."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from cpython.bytes cimport PyBytes_AS_STRING

from ncfast._frames cimport CID_SIZE, HEADER_SIZE, M_DATA, M_FIN, Chunk, Header, write_header
from ncfast.core.ends cimport FULL_READ, SEND_ACK, SEND_FIN
from ncfast.core.receiving cimport Receiver

from ncfast.core.states import FlowEvent, FlowState

cdef enum:
    READ_AHEAD = FULL_READ     # bytes read from a socket and not yet on a path; more stays in the kernel
    MIN_READ = 4096            # a paused socket is read again when at least this much may be read
    COPIED = 16384             # a read of up to so many bytes costs no more memory than itself and a header

cdef int CLOSED = FlowState.CLOSED
cdef int LOCAL_FIN = FlowEvent.LOCAL_FIN


cdef class Sender(Receiver):

    cdef uint64_t holding(self) noexcept:
        # an end that is acknowledged takes a number beyond the last byte's
        return self.backlog + (self.snd_nxt - self.snd_una if self.snd_una < self.snd_nxt else 0)

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
        cdef Py_ssize_t held, had
        if chunk is None or not self.resumed:
            return None
        if chunk.seq < self.snd_una:                   # sent before, and the peer has its first bytes
            held = self.ctx.pool.held
            had = self.snd_una - chunk.seq
            self.ctx.pool.skip(chunk, had)
            self.ctx.bytes_out += had
            self.unsent_bytes -= had
            self.share.charge(self.ctx.pool.held - held)
        if self.held():                                # it may be all beyond a new path's limit now
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
