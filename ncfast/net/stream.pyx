"""What the socket end of a flow stands on: a transport of asyncio's kind, called without Python's calls.

`SocketTransport` is the one over a socket. Others, written in Python, stand in for it where there is no kernel; they
have asyncio's methods, and what is beyond these is done here with the socket that they name, if they have one.
"""

import fcntl
import os
import socket
import struct
import sys
import termios

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t

cdef bytes RESET = struct.pack("ii", 1, 0)    # SO_LINGER: closing is a reset
cdef bytes ORDER = struct.pack("ii", 0, 0)


cdef class Stream:
    """A connected socket. `close` ends it in order, behind what is to be written; `abort` at once, as `closes_by_reset`
    has it."""

    def get_extra_info(self, name, default=None):
        raise NotImplementedError

    cpdef set_write_buffer_limits(self, Py_ssize_t high, Py_ssize_t low):
        raise NotImplementedError

    cpdef Py_ssize_t get_write_buffer_size(self) except -1:
        raise NotImplementedError

    cpdef write(self, data):
        """Takes the bytes, and copies those that the kernel does not."""
        raise NotImplementedError

    cpdef write_eof(self):
        """Raises OSError if the connection is lost already; that will be told as ever."""
        raise NotImplementedError

    cpdef pause_reading(self):
        raise NotImplementedError

    cpdef resume_reading(self):
        raise NotImplementedError

    cpdef close(self):
        raise NotImplementedError

    cpdef abort(self):
        raise NotImplementedError

    cpdef detach(self):
        """Gives up the socket, and the bytes that it has not taken: the connection is whoever has them now, and nothing
        more is told of it here. None if it is over: that is told in a moment."""
        raise NotImplementedError

    cpdef inherit(self, bytes unsent, bint eof_in, bint eof_out):
        """Goes on where another that has given this socket up was: `unsent` is written first, the far side's end
        (`eof_in`) is not told again, ours (`eof_out`) was written, or is behind `unsent`. Raises OSError as `write_eof`
        does."""
        raise NotImplementedError

    cdef int send(self, const uint8_t* p, Py_ssize_t n) except -1:
        """`write`, of memory that is the caller's again when this returns."""
        self.write(PyMemoryView_FromMemory(<char*>p, n, PyBUF_READ))
        return 0

    cdef int send_all(self, Span* spans, int count) except -1:
        """The same of several pieces."""
        cdef int i
        for i in range(count):
            self.send(spans[i].p, spans[i].n)
        return 0

    cdef Py_ssize_t receive(self, uint8_t* at, Py_ssize_t size) except -1:
        """Reads past the protocol, into its memory. 0: nothing is there."""
        sock = self.get_extra_info("socket")
        if sock is None:
            return 0
        try:
            return os.readv(sock.fileno(), [PyMemoryView_FromMemory(<char*>at, size, PyBUF_WRITE)])
        except OSError:
            return 0

    cdef int close_at_once(self) except -1:
        """`close`; `connection_lost` may come before this returns."""
        self.close()
        return 0

    cdef int closes_by_reset(self, bint on) except -1:
        """What the kernel does when the socket is closed, be it because the process ends: a reset, or an end in
        order."""
        sock = self.get_extra_info("socket")
        if sock is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET if on else ORDER)
            except OSError:
                pass
        return 0

    cdef Py_ssize_t unacknowledged(self) except -1:
        """Bytes that the kernel holds for the far machine (SIOCOUTQ)."""
        sock = self.get_extra_info("socket")
        if sock is None:
            return 0
        try:
            return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0
