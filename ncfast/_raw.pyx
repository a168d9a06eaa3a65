"""The bare byte stream as a carrier, between hubs: frames follow each other with nothing in between (docs/protocol.md).

The stream has no closing handshake: whoever ends the link says why in a last GOAWAY, and closes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.string cimport memcpy, memset

from ncfast._frames cimport GOAWAY, Header, build_frame
from ncfast._link cimport Carrier, Link, Piece
from ncfast._websocket cimport ReceiveBuffer

from ncfast.errors import Reason

cdef enum:
    JOIN_BELOW = 32768         # smaller batches are copied into one buffer: cheaper than an iovec

cdef double ABORT_AFTER = 5.0  # seconds from close to abort: a peer that does not read cannot hold the descriptor


cdef class RawCarrier(Carrier):
    """An asyncio BufferedProtocol; takes over the transport when nothing but frames is to come."""

    def __init__(self, transport, call_later, ReceiveBuffer buffer not None):
        self.transport = transport
        self._call_later = call_later
        self._buffer = buffer

    def start(self, Link link not None):
        """Puts the link on the carrier; call before the transport is switched over."""
        self.link = link
        self.transport.set_write_buffer_limits(high=0)

    # asyncio

    def is_buffered_protocol(self):
        return True

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, hint):
        return self._buffer.view

    def buffer_updated(self, Py_ssize_t n):
        if not self._ended:
            self._receive(n)
        if self._broken:
            self._call_later(0, self.broken)

    def broken(self):
        """The connection was reset, and bytes that came before that may still be unread: from here on each read needs a
        poll handle of its own (see net.ErrorWatch)."""
        self._broken = True
        if self.transport.is_reading():
            self.transport.pause_reading()
            self.transport.resume_reading()

    def feed(self, bytes data not None):
        """Bytes that came before the transport was switched over, of any number."""
        cdef Py_ssize_t at = 0, n
        while at < PyBytes_GET_SIZE(data) and not self._ended:
            n = min(PyBytes_GET_SIZE(data) - at, self._buffer.size)
            memcpy(self._buffer.data, PyBytes_AS_STRING(data) + at, n)
            self._receive(n)
            at += n

    cdef int _receive(self, Py_ssize_t n) except -1:
        try:
            self.link.receive(self._buffer.data, n)
        finally:
            self.link.settle()           # after a defect too: what was passed on points into our buffer
        return 0

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

    # out

    cdef int send(self, Piece* pieces, list bases, int count, Py_ssize_t total) except -1:
        cdef int i
        cdef Py_ssize_t at
        cdef bytes out
        if self._ended:
            return 0
        if total < JOIN_BELOW:
            if count == 1 and bases[0] is not None and pieces[0].n == PyBytes_GET_SIZE(<bytes>bases[0]):
                self.transport.write(bases[0])
                return 0
            out = PyBytes_FromStringAndSize(NULL, total)
            at = 0
            for i in range(count):
                memcpy(PyBytes_AS_STRING(out) + at, pieces[i].p, pieces[i].n)
                at += pieces[i].n
            self.transport.write(out)
            return 0
        lines = []
        for i in range(count):
            base = bases[i]
            if base is None:             # spent when this returns: the transport copies what the kernel does not take
                lines.append(PyMemoryView_FromMemory(<char*>pieces[i].p, pieces[i].n, PyBUF_READ))
                continue
            at = pieces[i].p - <const unsigned char*>PyBytes_AS_STRING(<bytes>base)
            if at == 0 and pieces[i].n == PyBytes_GET_SIZE(<bytes>base):
                lines.append(base)
            else:
                lines.append(memoryview(base)[at:at + pieces[i].n])
        self.transport.writelines(lines)
        return 0

    cdef int end(self, reason, str detail) except -1:
        """Tells the peer why and closes; a peer that does not take even that is cut."""
        cdef Header h
        if self._ended:
            return 0
        self._ended = True
        if reason is Reason.KEEPALIVE_TIMEOUT or reason is Reason.STALLED:
            self.transport.abort()
            return 0
        memset(&h, 0, sizeof(h))
        h.type = GOAWAY
        h.code = reason
        self.transport.write(build_frame(&h, NULL))
        self.transport.close()
        self._call_later(ABORT_AFTER, self.transport.abort)
        return 0
