"""What the carriers share: the asyncio side of a link's connection."""

from libc.stdint cimport uint8_t, uint64_t
from posix.uio cimport iovec

from ncfast.core.link cimport Link
from ncfast.core.queues cimport MAX_PIECES, Carrier, Piece


cdef enum:
    JOIN_BELOW = 32768         # smaller batches are copied into one buffer: cheaper than an iovec
    JOINED = 262144            # bytes of that buffer; a message of a link's bytes is never longer
    MAX_WRITE = MAX_PIECES + 9 # lines a write: a head, and what `Queues` gathers


cdef class ReceiveBuffer:
    cdef uint8_t* data
    cdef readonly Py_ssize_t size
    cdef readonly object view


cdef class TransportCarrier(Carrier):
    cdef readonly object transport
    cdef readonly Link link
    cdef int _fd                     # of a connection without TLS, for sending past the transport; -1: there is no such
    cdef ReceiveBuffer _buffer
    # its share of the loop's turn
    cdef uint64_t _work              # of the carrier itself: messages; those of the link are counted there
    cdef uint64_t _share
    cdef uint64_t _turn_ends         # the work at which it stops reading until the next turn
    cdef bint _waits                 # for the next turn
    cdef Py_ssize_t _grant           # bytes of a read, at most
    cdef object _call_later
    cdef bint _ended
    cdef bint _broken

    cdef int _receive(self, uint8_t* p, Py_ssize_t n) except -1
    cdef int _arrived(self, Py_ssize_t n) except -1
    cdef int _take_turns(self, uint64_t work, Py_ssize_t n) except -1
    cdef bint _direct(self) noexcept
    cdef bytes _room(self, Py_ssize_t size, uint8_t** at)
    cdef int _send(self, const uint8_t* p, Py_ssize_t n, bytes whole) except -1
    cdef int _write(self, const uint8_t* head, Py_ssize_t size, Piece* pieces, list bases, int count) except -1
    cdef int _left_to_transport(self) except -1
    cdef int _close(self) except -1
