"""The socket end of a flow: an asyncio BufferedProtocol over a client's or a target's TCP connection.

Bytes are read straight into the pool's segment, behind room for the frame header. Bytes for the socket are written at
once; the transport copies what the kernel does not take, so the link's receive buffer is free again when `deliver`
returns. `SocketTransport` calls it without Python's calls (`reserve`, `received`).
"""

import errno
from collections import namedtuple

from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from ncfast.core.context cimport FlowContext
from ncfast.core.ends cimport Sink, Span
from ncfast.core.flow cimport Flow
from ncfast._frames cimport MAX_DATA

from ncfast.net.stream cimport Stream

cdef enum:
    HIGH_WATER = 32768         # bytes; below it a backlog counts as delivered, far less than any window
    LOW_WATER = 8192

# Seconds that a closed socket is still read, so that the kernel does not answer a late byte with a reset that destroys
# our last ones (the "ultimate SO_LINGER page").
cdef double LINGER = 2.0
cdef double REAP_EVERY = 30.0  # seconds between two looks at a closing socket whose reader pauses
cdef double RESET_POLL = 0.01  # seconds between two looks at whether a socket that is to be reset has sent all
# Errors by which the kernel says that the far machine answers neither probes nor data.
cdef frozenset LOST = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH})


# A socket between two ends that it is under, one here and one in a process to come, with what the kernel does not
# know: bytes that it has not taken, whether the far side's end of stream was read, and ours written, be it behind them.
SocketState = namedtuple("SocketState", "sock unsent eof_in eof_out", module=__name__)


cdef SocketEnd end_of(FlowContext ctx, owner, call_later, int reset_code, int lost_code):
    """A new one, without Python's call."""
    cdef SocketEnd end = SocketEnd.__new__(SocketEnd)
    end.ctx = ctx
    end._owner = owner
    end._call_later = call_later
    end._reset_code = reset_code
    end._lost_code = lost_code
    return end


cdef class SocketEnd(Sink):
    """`owner.socket_ready(end)` is called when the socket is usable, `owner.socket_gone(end)` when it is closed.

    `reset_code` is the Reason sent when the peer resets, `lost_code` when its machine no longer answers.
    """

    def __init__(self, FlowContext ctx not None, owner, call_later, int reset_code, int lost_code):
        self.ctx = ctx
        self._owner = owner
        self._call_later = call_later
        self._reset_code = reset_code
        self._lost_code = lost_code

    cpdef carry(self, Flow flow):
        """Puts the flow on this socket."""
        self.flow = flow
        self.share = flow.share
        flow.bind(self)

    # passed on

    def detach(self):
        """Gives up the socket of a flow that is to be exported in the same turn: a `SocketState`. The owner is told
        nothing. None if the connection is over, which is told in a moment, or the flow is."""
        if self._lost or self._released:
            return None
        if self.flow is not None and self.flow.holds:
            self.ctx.let_go(self.flow)   # into what is given
        given = self.transport.detach()
        if given is None:
            return None
        sock, unsent = given
        self._lost = True
        self.flow = self.transport = self._view = None
        return SocketState(sock, unsent, self._eof_in, self._eof_out)

    def inherit(self, Flow flow not None, state not None):
        """What comes before this end is adopted on `state.sock`: it goes on with a flow that was restored, and in place
        of `socket_ready` nothing is called. If the connection cannot be had, the flow is reset."""
        self.flow = flow
        self.share = flow.share
        self._inherits = state

    cdef int _go_on(self, state) except -1:
        cdef Flow flow = self.flow
        self._eof_in, self._eof_out = state.eof_in, state.eof_out
        self.transport.pause_reading()
        try:
            self.transport.inherit(state.unsent, state.eof_in, state.eof_out)
        except OSError:
            pass                         # reset meanwhile: connection_lost is on its way
        if self._eof_out and self.transport.get_write_buffer_size() == 0:
            self.transport.closes_by_reset(False)
        flow.bind(self)
        flow.on_drained()
        return flow.update_reading()

    # asyncio

    def is_buffered_protocol(self):
        return True

    cpdef connection_made(self, Stream transport):
        self.transport = transport
        transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        # a reset until our last byte and the end behind it are in the kernel's hands, so that nobody takes a stream
        # that was cut short for a whole one, be it that this process ends
        transport.closes_by_reset(True)
        try:
            if self._inherits is None:
                self._owner.socket_ready(self)
            else:
                state, self._inherits = self._inherits, None
                self._go_on(state)
        except:
            self.abort()                 # a defect must not leave a socket that nobody serves
            raise

    def get_buffer(self, hint):
        cdef uint8_t* at = NULL
        cdef Py_ssize_t size = self.reserve(&at)
        if at != self._view_at or size != self._view_size:
            self._view = PyMemoryView_FromMemory(<char*>at, size, PyBUF_WRITE)
            self._view_at = at
            self._view_size = size
        return self._view

    def buffer_updated(self, Py_ssize_t n):
        self.received(n)

    cdef Py_ssize_t reserve(self, uint8_t** at) except -1:
        """Where the next bytes go, and how many at most."""
        cdef Py_ssize_t size = MAX_DATA
        at[0] = self.ctx.pool.reserve()
        if self.flow is not None:
            size = self.flow.room()
            if size <= 0:
                size = 1                 # a transport that asks although paused; the flow sends it when it has credit
        return size

    cdef int received(self, Py_ssize_t n) except -1:
        """So many bytes were put where `reserve` said."""
        if self.flow is None:
            self.ctx.bytes_read += n
            self.ctx.discarded += n
        else:
            self.flow.push(self.ctx.pool.commit(n))
        return 0

    def feed(self, bytes data not None):
        """Bytes that were read before this end took the socket over."""
        cdef Py_ssize_t at = 0, n
        while at < PyBytes_GET_SIZE(data) and self.flow is not None:
            n = min(PyBytes_GET_SIZE(data) - at, <Py_ssize_t>MAX_DATA)
            memcpy(self.ctx.pool.reserve(), PyBytes_AS_STRING(data) + at, n)
            self.flow.push(self.ctx.pool.commit(n))
            at += n

    cpdef eof_received(self):
        self._eof_in = True
        if self.flow is not None:
            self.flow.finish()
        elif self._released and not self._resetting:
            self._close()
        return True

    def pause_writing(self):
        self._blocked = True

    def resume_writing(self):
        self._blocked = False
        if self.flow is not None:
            self.flow.on_drained()
        elif not self._lost:
            self._count(self.transport.get_write_buffer_size())

    cdef int _count(self, Py_ssize_t left) except -1:
        """What waits here for a reader although the flow is over stays in the process's budget."""
        if left != self.left and self.share is not None:
            self.ctx.backlog += left - self.left
            self.share.charge(left - self.left)
            self.left = left
        return 0

    def handshake_failed(self, exc):
        """The transport could not be made."""
        cdef Flow flow = self.flow
        self._lost = True
        self.flow = None
        if flow is not None:
            flow.reset(self._reset_code)
        self._owner.socket_gone(self)

    cpdef connection_lost(self, exc):
        cdef Flow flow = self.flow
        self._lost = True
        self.flow = None
        self._view = None
        self._count(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if flow is not None:
            if exc is not None and not self._eof_in:
                self._read_rest(flow)
            lost = isinstance(exc, OSError) and exc.errno in LOST
            flow.reset(self._lost_code if lost else self._reset_code, behind=True)
        self._owner.socket_gone(self)
        self.transport = None

    cdef int _read_rest(self, Flow flow) except -1:
        """A failed write, or a reset, may have ended the connection over bytes that wait to be read; they were sent
        before it, and any peer of a plain connection would have got them. At most what the kernel's buffer holds."""
        cdef Py_ssize_t n
        while not flow.closed and not self.share.is_pressed():
            n = self.transport.receive(self.ctx.pool.reserve(), MAX_DATA)
            if n == 0:
                return 0                 # after a reset was reported this is no end of stream
            flow.push(self.ctx.pool.commit(n))
        return 0

    cdef bint has_no_room(self) except -1:
        """Whether there is no memory for what waits to be read, which may yet go to the peer."""
        return self.flow is not None and self.share.is_pressed() and not self.flow.starves()

    # Sink

    cdef Py_ssize_t deliver(self, const uint8_t* p, Py_ssize_t n) except -1:
        if self._lost or self._eof_out:
            return 0
        self.transport.send(p, n)
        return self.transport.get_write_buffer_size() if self._blocked else 0

    cdef Py_ssize_t deliver_all(self, Span* spans, int count) except -1:
        if self._lost or self._eof_out:
            return 0
        self.transport.send_all(spans, count)
        return self.transport.get_write_buffer_size() if self._blocked else 0

    cdef Py_ssize_t waiting(self) except -1:
        return self.transport.get_write_buffer_size() if self._blocked and not self._lost else 0

    cdef int finish(self) except -1:
        if not self._lost and not self._eof_out:
            self._eof_out = True
            try:
                self.transport.write_eof()
            except OSError:
                return 0                 # reset meanwhile: connection_lost is on its way
            if self.transport.get_write_buffer_size() == 0:
                self.transport.closes_by_reset(False)
        return 0

    cdef int set_reading(self, bint on) except -1:
        if self._lost or self.transport is None or self._eof_in:
            return 0
        if on:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()
        return 0

    cdef int release(self, bint reset) except -1:
        self.flow = None
        self._released = True
        if self._lost or self.transport is None:
            return 0
        self._count(self.transport.get_write_buffer_size())
        if reset:
            self._resetting = True       # from here on nothing may end this connection in order
            self.transport.closes_by_reset(True)
            self._abort_when_sent()
        elif self._eof_in:
            self._close()
        else:
            self.finish()
            self.transport.resume_reading()
            self._timer = self._call_later(LINGER, self._close)
        return 0

    cdef int cut(self) except -1:
        self.flow = None
        self._released = True
        self.abort()
        return 0

    def _abort_when_sent(self):
        """Resets the connection when the peer has what was delivered, or after LINGER: a reset destroys what is on its
        way."""
        self._timer = None
        if self._lost:
            return
        if self._waited >= LINGER or self.unread() == 0:
            self.abort()
            return
        self._waited += RESET_POLL
        self._timer = self._call_later(RESET_POLL, self._abort_when_sent)

    cdef Py_ssize_t unread(self) except -1:
        return self.transport.get_write_buffer_size() or self.transport.unacknowledged()

    @property
    def in_kernel(self):
        """Bytes that the kernel holds for the far machine (SIOCOUTQ): a system call."""
        return 0 if self.transport is None or self._lost else self.transport.unacknowledged()

    def abort(self):
        """Resets the connection: the far side sees an error, not an end of stream."""
        if self._lost or self.transport is None:
            return
        self._resetting = True           # `connection_lost` comes without an error, and bytes may have been left
        self.transport.closes_by_reset(True)
        self.transport.abort()

    def _close(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lost:
            return
        cdef Stream transport = self.transport       # `connection_lost` may let go of it meanwhile
        transport.close_at_once()
        if not self._lost and transport.get_write_buffer_size():
            self._waited = 0.0
            self._timer = self._call_later(REAP_EVERY, self._reap)

    def _reap(self):
        """A reader that pauses gets what waits for it in its own time, unless memory is short or `reader_pause` is
        over; the kernel ends it when its machine is gone."""
        cdef Py_ssize_t before = self.left
        self._timer = None
        if self._lost:
            return
        self._count(self.transport.get_write_buffer_size())
        self._waited = self._waited + REAP_EVERY if self.left >= before else 0.0
        if self.share.is_pressed() or (self.ctx.reader_pause and self._waited >= self.ctx.reader_pause):
            self.abort()
        else:
            self._timer = self._call_later(REAP_EVERY, self._reap)
