"""What the carriers share: the asyncio side of a link's connection.

A connection is read into a buffer of the process, and what it says is spent when the read is over. A carrier ends once,
by whichever side: afterwards nothing that comes is looked at, and nothing is sent.

A buffer holds four frames or forty thousand messages, and everybody else waits until it is spent. So a carrier has a
share of each turn of the loop, in frames and messages: once it is used up the connection is not read until the next
turn, and where frames are small a read is no longer than what a share of them took (docs/decisions/0016-turns.md).

What is sent the kernel is asked to take at once, past the transport, on a connection without TLS whose transport holds
nothing back. Only what it does not take becomes objects of Python, and the transport's
(docs/decisions/0017-transport.md).
"""

from aiofastnet.selector_transport import SelectorSocketTransport

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from ncfast.core.link cimport Link
from ncfast.core.queues cimport Carrier, Piece
from ncfast.net.sys_socket cimport MSG_DONTWAIT, MSG_NOSIGNAL, msghdr, send, sendmsg

from ncfast.core.errors import Reason

cdef enum:
    SHARE = 256                # frames and messages of a tunnel in a turn of the loop: up to half a millisecond
    SHARES_OF_HUB = 4          # a link between hubs carries the flows of many tunnels
    LEAST_READ = 1024          # bytes of a read, however small the frames

cdef double ABORT_AFTER = 5.0  # seconds from close to abort: a peer that does not read cannot hold the descriptor


cdef uint8_t joined[JOINED]     # a message is made and sent before the next


cdef class ReceiveBuffer:
    """`size` bytes; `view` is handed to transports, and its content is spent when `buffer_updated` returns."""

    def __cinit__(self, Py_ssize_t size=262144):
        self.data = <uint8_t*>malloc(size)
        if self.data == NULL:
            raise MemoryError()
        self.size = size
        self.view = PyMemoryView_FromMemory(<char*>self.data, size, PyBUF_WRITE)

    def __dealloc__(self):
        free(self.data)


cdef class TransportCarrier(Carrier):
    """An asyncio BufferedProtocol; takes over the transport when the handshake is done. `call_later(seconds,
    callback)`."""

    def __init__(self, transport, call_later, ReceiveBuffer buffer not None):
        self.transport = transport
        self._call_later = call_later
        self._buffer = buffer
        self._grant = buffer.size
        self._fd = -1

    def start(self, Link link not None):
        """Puts the link on the carrier; call before the transport is switched over."""
        self.link = link
        self._share = SHARES_OF_HUB * SHARE if link.between_hubs else SHARE
        self._turn_ends = self._share
        if isinstance(self.transport, SelectorSocketTransport):
            self._fd = self.transport.get_extra_info("socket").fileno()
            if self.transport.get_write_buffer_size():
                link.set_writable(False) # the end of the handshake goes first; `resume_writing` comes to us
        self.transport.set_write_buffer_limits(high=0)

    def feed(self, bytes data not None):
        """Bytes that came before the transport was switched over, of any number."""
        cdef Py_ssize_t at = 0, n
        while at < PyBytes_GET_SIZE(data):
            n = min(PyBytes_GET_SIZE(data) - at, self._buffer.size)
            memcpy(self._buffer.data, PyBytes_AS_STRING(data) + at, n)
            self._arrived(n)
            at += n

    def broken(self):
        """The connection was reset, and bytes that came before that may still be unread: from here on each read needs a
        poll handle of its own (see net.ErrorWatch)."""
        self._broken = True
        if not self._waits and self.transport.is_reading():
            self.transport.pause_reading()
            self._read_on()

    # asyncio

    def is_buffered_protocol(self):
        return True

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, hint):
        return self._buffer.view if self._grant == self._buffer.size else self._buffer.view[:self._grant]

    def buffer_updated(self, Py_ssize_t n):
        self._arrived(n)
        if self._broken:
            self._call_later(0, self.broken)

    def eof_received(self):
        if not self._ended:
            self._ended = True
            self._call_later(ABORT_AFTER, self.transport.abort)
            self.link.lost(Reason.CONNECTION_LOST, "end of stream")
        return False

    def connection_lost(self, exc):
        if not self._ended:
            self._ended = True
            self.link.lost(Reason.CONNECTION_LOST, type(exc).__name__ if exc is not None else "closed")

    def pause_writing(self):
        self.link.set_writable(False)

    def resume_writing(self):
        self.link.set_writable(True)

    # for the kinds of carriers

    cdef int _receive(self, uint8_t* p, Py_ssize_t n) except -1:
        """Takes the frames of the link out of what has come."""
        raise NotImplementedError

    cdef int _arrived(self, Py_ssize_t n) except -1:
        cdef uint64_t before = self._work + self.link.work
        if self._ended:
            return 0
        self.link.ctx.in_read = True
        try:
            self._receive(self._buffer.data, n)
        finally:
            self.link.settle()           # after a defect too: what was passed on points into our buffer
        return self._take_turns(self._work + self.link.work - before, n)

    cdef int _take_turns(self, uint64_t work, Py_ssize_t n) except -1:
        """`n` bytes were `work` frames and messages."""
        if work > self._share:
            self._grant = max(n * <Py_ssize_t>self._share // <Py_ssize_t>work, <Py_ssize_t>LEAST_READ)
        elif self._grant < self._buffer.size and 2 * work <= self._share:
            self._grant = min(2 * self._grant, self._buffer.size)
        if not self._waits and not self._ended and self._work + self.link.work >= self._turn_ends:
            self._waits = True
            self.transport.pause_reading()
            self._call_later(0, self._next_turn)
        return 0

    def _next_turn(self):
        self._waits = False
        self._turn_ends = self._work + self.link.work + self._share
        self._read_on()

    def _read_on(self):
        """Resumes reading. With TLS aiofastnet 1.2 then reads from the socket first: what it has read before, and not
        told, would wait for more to come, or end the connection where there is no room for more. So that goes first."""
        self.transport.resume_reading()
        held = getattr(self.transport, "_retry_ssl_read", None)
        if held is not None and not self.transport.is_closing():
            held()

    cdef bint _direct(self) noexcept:
        """Whether the kernel may be asked, since nothing waits before what is sent now. The descriptor is the
        transport's until `connection_lost`, and then nothing is sent."""
        return self._fd >= 0 and self.link._writable

    cdef bytes _room(self, Py_ssize_t size, uint8_t** at):
        """Where a message of `size` bytes is put together, and the object that is then to be sent, if it is one."""
        cdef bytes whole = None
        if size <= JOINED and self._direct():
            at[0] = joined
        else:
            whole = PyBytes_FromStringAndSize(NULL, size)
            at[0] = <uint8_t*>PyBytes_AS_STRING(whole)
        return whole

    cdef int _send(self, const uint8_t* p, Py_ssize_t n, bytes whole) except -1:
        """Sends `n` bytes at p: of `whole`, or, without it, spent when this returns."""
        cdef Py_ssize_t sent = 0
        if self._direct():
            sent = send(self._fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent == n:
                return 0
            sent = max(sent, <Py_ssize_t>0)      # of an error the transport hears when it tries itself
        if sent or whole is None:
            whole = PyBytes_FromStringAndSize(<const char*>p + sent, n - sent)
        self.transport.write(whole)
        return self._left_to_transport()

    cdef int _write(self, const uint8_t* head, Py_ssize_t size, Piece* pieces, list bases, int count) except -1:
        """Sends `size` bytes at `head`, and the pieces behind them, without copying what the kernel takes."""
        cdef iovec vectors[MAX_WRITE]
        cdef msghdr message
        cdef Py_ssize_t sent = 0, total = size, at, n
        cdef list lines = []
        cdef int i, used = 0
        if self._direct():
            if size:
                vectors[0].iov_base = <void*>head
                vectors[0].iov_len = size
                used = 1
            for i in range(count):
                vectors[used].iov_base = <void*>pieces[i].p
                vectors[used].iov_len = pieces[i].n
                total += pieces[i].n
                used += 1
            memset(&message, 0, sizeof(message))
            message.msg_iov = vectors
            message.msg_iovlen = used
            sent = sendmsg(self._fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent == total:
                return 0
            sent = max(sent, <Py_ssize_t>0)
        if sent < size:
            lines.append(PyBytes_FromStringAndSize(<const char*>head + sent, size - sent))
        sent -= size
        for i in range(count):
            n = pieces[i].n
            if sent >= n:
                sent -= n
                continue
            at = max(sent, <Py_ssize_t>0)
            sent = 0
            base = bases[i]
            if base is None:             # spent when this returns: the transport copies what the kernel does not take
                lines.append(PyMemoryView_FromMemory(<char*>pieces[i].p + at, n - at, PyBUF_READ))
                continue
            n -= at
            at += pieces[i].p - <const uint8_t*>PyBytes_AS_STRING(<bytes>base)
            if n == PyBytes_GET_SIZE(<bytes>base):
                lines.append(base)
            else:
                lines.append(memoryview(base)[at:at + n])
        self.transport.writelines(lines)
        return self._left_to_transport()

    cdef int _left_to_transport(self) except -1:
        """One that is closing may have dropped it, and says nothing until the next turn: then nothing follows."""
        if self._fd >= 0 and self.transport.is_closing():
            self._fd = -1
        return 0

    cdef int _close(self) except -1:
        """Closes behind what is sent; a peer that does not take even that is cut."""
        self.transport.close()
        self._call_later(ABORT_AFTER, self.transport.abort)
        return 0
