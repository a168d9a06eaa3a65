"""What is shared: by the two directions of a flow, and by all flows of a process."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from ncfast._frames cimport DedupRing, SegmentPool
from ncfast.core.budget cimport Budget, Share
from ncfast.core.clock cimport Clock
from ncfast.core.ends cimport HELD, Path, Sink, Source, Span


cdef enum:
    PRESSED_WINDOW = 16384           # window under memory pressure


cdef class FlowBase(Source):
    """What both directions of a flow, and the context, know of it. It has no constructor: only `Flow` is made."""
    cdef FlowContext ctx
    cdef readonly bytes cid
    cdef readonly bytes open_body
    cdef readonly int state
    cdef readonly Share share
    cdef readonly Sink sink
    # the path
    cdef readonly Path path
    cdef readonly uint64_t epoch     # of the frames on this path
    cdef bint resumed                # the exchange of M_RESUME is over: data may be sent on this path
    cdef int pending
    # what ends each direction
    cdef bint fin_sent
    cdef bint fin_acked
    cdef bint fin_received
    # for the socket
    cdef readonly Py_ssize_t backlog
    cdef bint holds                  # bytes of the read that is being looked at wait for its end
    # time
    cdef bint watched                # the next round of timers looks at it
    cdef int64_t round               # otherwise the one in which it is due
    cdef public double since         # last progress, or last change of state
    cdef double una_since
    cdef double taken_since          # when the socket last took some, or none waited

    cdef int move(self, int event) except -1
    cdef uint64_t holding(self) noexcept
    cdef int set_backlog(self, Py_ssize_t backlog) except -1
    cdef int delivered(self) except -1
    cdef int accepted(self) except -1
    cdef bint is_done(self) noexcept
    cdef int maybe_done(self) except -1
    cdef int violation(self) except -1
    cpdef int cut(self, int code) except -1


cdef class FlowContext:
    """What all flows of a process share."""
    cdef readonly SegmentPool pool
    cdef readonly DedupRing closed
    cdef readonly object clock
    cdef Clock _clock                # the same, if it is one
    cdef readonly dict flows         # all that live, by cid
    cdef readonly set passed         # cids of flows that another process may have by now: what comes is passed over
    cdef dict _watched               # those that the next round of timers looks at -> None
    cdef dict _resting               # the others, by the round in which they are due -> {flow: None}
    cdef public object owner
    cdef public object stray_reset   # (link, cid, code): M_RST for a flow that is not here, and may be yet to come
    cdef readonly Budget budget
    cdef readonly Share share        # of what is relayed, and of flows that have no other
    cdef public Py_ssize_t window_initial
    cdef public Py_ssize_t window_max
    cdef list corked                 # links whose frames leave behind a batch of clients; None: there is none
    cdef public double reader_pause  # seconds that a socket for which bytes wait may take none; 0: for ever
    cdef readonly Py_ssize_t promise # credit that a flow's far end has before this one knows the flow: HELLO says it
    cdef readonly Py_ssize_t backlog
    cdef readonly Py_ssize_t relayed # bytes of relayed frames that wait for a link
    cdef readonly Py_ssize_t windows # sum of the windows of all flows that live
    cdef readonly Py_ssize_t live    # how many they are
    # data of a link's read: that of a flow goes to its socket in one write when the read has been looked at
    cdef bint in_read                # one is looked at, and its memory stays until `settle`
    cdef Span _spans[HELD]
    cdef void* _span_of[HELD]        # whose each is
    cdef int _span_count
    cdef list _holders
    cdef public uint64_t duplicates
    cdef public uint64_t gaps
    cdef public uint64_t bytes_read  # from sockets; = bytes_out + discarded + what is held for replay
    cdef public uint64_t bytes_in    # written to sockets
    cdef public uint64_t bytes_out   # acknowledged by peers
    cdef public uint64_t discarded

    cdef double now(self) except? -1
    cdef Py_ssize_t first_window(self, Share share) noexcept
    cdef int relay(self, Py_ssize_t size) except -1
    cdef int relieve(self, FlowBase asking) except -1
    cpdef cork(self)
    cdef int hold(self, FlowBase flow, const uint8_t* p, Py_ssize_t n) except -1
    cdef int let_go(self, FlowBase flow) except -1
    cdef int settle(self) except -1
    cdef int watch(self, FlowBase flow) except -1
    cdef int rest(self, FlowBase flow, double until) except -1
    cdef int leave(self, FlowBase flow) except -1
