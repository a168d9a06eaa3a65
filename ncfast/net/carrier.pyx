"""What the carriers share: the asyncio side of a link's connection.

A connection is read into a buffer of the process, and what it says is spent when the read is over. A carrier ends once,
by whichever side: afterwards nothing that comes is looked at, and nothing is sent.

A buffer holds four frames or forty thousand messages, and everybody else waits until it is spent. So a carrier has a
share of each turn of the loop, in frames and messages: once it is used up the connection is not read until the next
turn, and where frames are small a read is no longer than what a share of them took (docs/decisions/0016-turns.md).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from ncfast.core.link cimport Link
from ncfast.core.queues cimport Carrier, Piece

from ncfast.core.errors import Reason

cdef enum:
    SHARE = 256                # frames and messages of a tunnel in a turn of the loop: up to half a millisecond
    SHARES_OF_HUB = 4          # a link between hubs carries the flows of many tunnels
    LEAST_READ = 1024          # bytes of a read, however small the frames

cdef double ABORT_AFTER = 5.0  # seconds from close to abort: a peer that does not read cannot hold the descriptor


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

    def start(self, Link link not None):
        """Puts the link on the carrier; call before the transport is switched over."""
        self.link = link
        self._share = SHARES_OF_HUB * SHARE if link.between_hubs else SHARE
        self._turn_ends = self._share
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

    cdef int _write(self, list lines, Piece* pieces, list bases, int count) except -1:
        """Sends `lines`, and the pieces behind them, without copying what the kernel takes."""
        cdef int i
        cdef Py_ssize_t at
        for i in range(count):
            base = bases[i]
            if base is None:             # spent when this returns: the transport copies what the kernel does not take
                lines.append(PyMemoryView_FromMemory(<char*>pieces[i].p, pieces[i].n, PyBUF_READ))
                continue
            at = pieces[i].p - <const uint8_t*>PyBytes_AS_STRING(<bytes>base)
            if at == 0 and pieces[i].n == PyBytes_GET_SIZE(<bytes>base):
                lines.append(base)
            else:
                lines.append(memoryview(base)[at:at + pieces[i].n])
        self.transport.writelines(lines)
        return 0

    cdef int _close(self) except -1:
        """Closes behind what is sent; a peer that does not take even that is cut."""
        self.transport.close()
        self._call_later(ABORT_AFTER, self.transport.abort)
        return 0
