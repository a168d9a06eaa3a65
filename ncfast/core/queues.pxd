"""What waits for a link's carrier, and in which order it leaves. Sans-I/O."""

from libc.stdint cimport uint8_t, uint64_t

from ncfast.core.context cimport FlowContext
from ncfast.core.ends cimport Path, Source
from ncfast.core.fifo cimport Fifo
from ncfast.core.flow cimport Flow
from ncfast._frames cimport FRAME_TYPES
from ncfast.core.relay cimport Lane


cdef enum:
    MAX_PIECES = 64            # frames a write at most (an iovec and a little copying each)
    FRAME_COST = 256           # bytes that a queued frame counts beside its own


cdef struct Piece:
    const uint8_t* p
    Py_ssize_t n


cdef class Carrier:
    """What moves a link's bytes. A piece without a base is memory that is spent when `send` returns."""
    cdef int send(self, Piece* pieces, list bases, int count, Py_ssize_t total) except -1
    cdef int end(self, reason, str detail) except -1


cdef class Queues(Path):
    cdef readonly Carrier carrier
    cdef readonly FlowContext ctx
    cdef readonly dict flows
    cdef Flow _latest                # the one that the last frame was for, so that it need not be looked up
    cdef readonly bint closed
    cdef object _call_soon
    cdef object _call_later
    cdef object _uncork_callback
    # relayed frames that came in by other links
    cdef Piece _through[MAX_PIECES]  # of the read that is being looked at: they leave at its end
    cdef list _through_bases
    cdef int _through_count
    cdef Py_ssize_t _through_total
    cdef list _touched               # links to which frames of our own read were passed
    cdef readonly Py_ssize_t relay_frames
    cdef readonly Py_ssize_t relay_bytes
    cdef readonly uint64_t drops_queue
    cdef readonly uint64_t drops_away
    # the other queues, in the order of serving
    cdef bint _pong_owed
    cdef uint64_t _pong_seq
    cdef Fifo _control
    cdef Fifo _answers
    cdef Fifo _owing                 # lanes whose acknowledgements go ahead of their data
    cdef Fifo _urgent
    cdef Fifo _short
    cdef Fifo _capped                # flows that the in-flight cap holds, in the order of their turns
    cdef Fifo _bulk
    cdef Fifo _acks
    cdef Fifo _short_acks
    cdef public int queue_depth
    # when they are served
    cdef bint _writable
    cdef double _blocked_since
    cdef bint _corked
    cdef unsigned int _lonely
    cdef unsigned int _turns
    cdef bint _ack_timer
    cdef bint _short_ack_timer
    # counters, read at scrape time
    cdef uint64_t _frames_out[FRAME_TYPES]
    cdef readonly uint64_t bytes_out

    cdef int set_writable(self, bint on) except -1
    cdef int settle(self) except -1
    cdef int clear(self) except -1
    cdef int _enqueue(self, Source source) except -1
    cdef int _requeue(self, Flow flow) except -1
    cdef bint _holds(self, Flow flow) except -1
    cdef int _cork(self) except -1
    cdef int _gather_turn(self) except -1
    cdef int _acknowledge(self, Fifo queue, int where) except -1
    cdef bytes _flow_frame(self, Flow flow, int type)
    cdef bytes _pong(self)
    cdef bytes _owed(self, Lane lane)
    cdef int _piece(self, bytes frame, Piece* pieces, list bases, int* count, Py_ssize_t* total) except -1
    cdef int _flush(self) except -1
    cdef int _gather_write(self, Piece* pieces, list bases, int* count, Py_ssize_t* total) except -1
    cdef int _gather_urgent(self, Flow flow, Piece* pieces, list bases, int* count, Py_ssize_t* total) except -1
    cdef int _gather(self, Flow flow, Piece* pieces, list bases, int* count, Py_ssize_t* total,
                     Py_ssize_t allowance) except -1
    cdef int _gather_lane(self, Lane lane, Piece* pieces, list bases, int* count, Py_ssize_t* total,
                          Py_ssize_t allowance) except -1
    cdef bint _pass_on(self, Lane lane, int type, const uint8_t* p, Py_ssize_t n, bytes base, Queues source) except -1
    cdef int _owe(self, Lane lane, uint64_t ack, uint64_t limit) except -1
    cdef int _charge(self, Py_ssize_t frames, Py_ssize_t size) except -1
    cdef int _send_through(self) except -1
