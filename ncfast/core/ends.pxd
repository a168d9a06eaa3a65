"""What a flow stands between: the socket above it, and the link below it."""

from libc.stdint cimport uint8_t, uint64_t


cdef enum Pending:
    """Control frames that a flow owes its peer; a bit says `owed`, so that they coalesce."""
    SEND_OPEN = 1
    SEND_OPEN_ACK = 2
    SEND_RESUME = 4
    SEND_RESUME_ACK = 8
    SEND_ACK = 16
    SEND_RST = 32
    SEND_FIN = 64          # not urgent: stays behind the data
    SEND_LATE_RST = 128    # not urgent: stays behind the FIN


cdef enum:
    URGENT = 63            # the bits above that may overtake data


cdef enum:
    # Bytes of a read for a flow alone. With the headers of its frame and of a message around it they fit in one packet
    # of 64 KiB, the largest that Linux builds (65,483 bytes on loopback); 65,536 of them spill into a second one, which
    # costs as much (docs/decisions/0004-copies-and-segments.md)
    FULL_READ = 65024


cdef enum:
    """Where an acknowledgement waits for data to ride on."""
    WAITS_LONG = 1         # of short messages only
    WAITS = 2


cdef enum:
    HELD = 64              # pieces of a link's read that wait for its end


cdef struct Span:
    const uint8_t* p
    Py_ssize_t n


cdef class Sink:
    """The socket above a flow."""
    cdef Py_ssize_t deliver(self, const uint8_t* p, Py_ssize_t n) except -1
    cdef Py_ssize_t deliver_all(self, Span* spans, int count) except -1
    cdef Py_ssize_t waiting(self) except -1
    cdef Py_ssize_t unread(self) except -1
    cdef int finish(self) except -1
    cdef int set_reading(self, bint on) except -1
    cdef int release(self, bint reset) except -1
    cdef int cut(self) except -1


cdef class Source:
    """What takes its turns on a link: the bytes of a flow, or of a relayed direction."""
    cdef bint in_data                # queued on the link
    cdef Py_ssize_t deficit          # bytes saved up for a chunk larger than a turn
    cdef readonly Py_ssize_t unsent_bytes


cdef class Path:
    """The link below a flow. `epoch` is that of all its flows, 0 where each has its own (between hubs)."""
    cdef readonly uint64_t epoch
    cdef readonly dict lanes         # relayed flows that come in here: cid -> Lane
    cdef readonly double rtt
    cdef readonly Py_ssize_t inflight
    cdef public Py_ssize_t max_inflight
    cdef public Py_ssize_t peer_window   # credit that the peer gives each new flow

    cdef int adopt(self, Source flow) except -1
    cdef int submit(self, Source flow) except -1
    cdef int ack_soon(self, Source flow) except -1
    cdef int forget(self, Source flow) except -1
    cdef int withdraw(self, Source flow) except -1
    cdef int drop(self, Source source) except -1
    cdef int freed(self) except -1
    cdef int uncork(self) except -1
    cdef Py_ssize_t read_size(self) noexcept
