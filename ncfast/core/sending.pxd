"""The half of a flow that sends, from its socket to its path."""

from libc.stdint cimport uint64_t

from ncfast._frames cimport Chunk, Header
from ncfast.core.receiving cimport Receiver


cdef enum:
    SEGMENT = 4096                   # bytes; rule 6: what a round trip adds, and the least


cdef class Sender(Receiver):
    cdef Chunk head
    cdef Chunk tail
    cdef Chunk unsent
    cdef readonly uint64_t snd_nxt   # next byte's sequence
    cdef readonly uint64_t snd_una   # oldest unacknowledged
    cdef readonly uint64_t snd_max   # end of what was ever sent
    cdef readonly uint64_t snd_limit
    cdef readonly Py_ssize_t inflight
    cdef readonly Py_ssize_t congestion  # bytes that may be in flight after a relay has dropped some; 0: no such bound
    cdef bint reading

    cdef Py_ssize_t room(self) noexcept
    cdef int push(self, Chunk chunk) except -1
    cpdef finish(self)
    cdef int update_reading(self) except -1
    cdef Chunk take(self)
    cdef bint held(self) noexcept
    cdef int fill_header(self, Header* h, int type) except -1
    cdef int on_ack(self, uint64_t ack, uint64_t limit) except -1
    cdef int rewind(self) except -1
    cdef int drop_out(self) except -1
