"""A link: many flows over one carrier. Sans-I/O."""

from libc.stdint cimport uint8_t, uint64_t

from ncfast.core.flow cimport Flow, FlowContext, Path, Source
from ncfast._frames cimport HEADER_SIZE, Header
from ncfast.core.relay cimport Lane


cdef enum:
    MAX_PIECES = 64            # frames a write at most (an iovec and a little copying each)


cdef struct Piece:
    const uint8_t* p
    Py_ssize_t n


cdef class Carrier:
    """What moves a link's bytes. A piece without a base is memory that is spent when `send` returns."""
    cdef int send(self, Piece* pieces, list bases, int count, Py_ssize_t total) except -1
    cdef int end(self, reason, str detail) except -1


cdef class Link(Path):
    cdef readonly Carrier carrier
    cdef readonly FlowContext ctx
    cdef readonly object handler
    cdef readonly dict flows
    cdef readonly bint closed
    cdef readonly str peer
    cdef object _call_soon
    cdef object _call_later
    cdef object _uncork_callback
    # outbound
    cdef object _control
    cdef object _answers
    cdef object _urgent
    cdef object _bulk
    cdef object _short
    cdef object _capped              # flows that the in-flight cap holds, in the order of their turns
    cdef object _acks
    cdef bint _writable
    cdef bint _corked
    cdef unsigned int _lonely
    cdef unsigned int _turns
    cdef bint _ack_timer
    cdef bint _pong_owed
    cdef uint64_t _pong_seq
    cdef public int queue_depth
    # relayed frames that came in by other links
    cdef Piece _through[MAX_PIECES]  # of the read that is being looked at: they leave at its end
    cdef list _through_bases
    cdef int _through_count
    cdef Py_ssize_t _through_total
    cdef object _owing               # lanes whose acknowledgements go ahead of their data
    cdef list _touched               # links to which frames of our own read were passed
    cdef readonly Py_ssize_t relay_frames
    cdef readonly Py_ssize_t relay_bytes
    cdef readonly uint64_t drops_queue
    cdef readonly uint64_t drops_away
    # inbound
    cdef Header _h
    cdef uint8_t _head[HEADER_SIZE]
    cdef int _head_have
    cdef Py_ssize_t _left
    cdef uint64_t _at
    cdef uint8_t* _header_at         # where the header lies in the buffer, if it came in one piece
    cdef bint _stale
    cdef Flow _flow
    cdef Lane _lane
    cdef bytearray _body
    # keepalive
    cdef bint _heard
    cdef double _last_heard
    cdef double _blocked_since
    cdef double _ping_sent
    cdef double _pinged_at
    cdef uint64_t _bytes_at_tick
    cdef uint64_t _ping_seq
    cdef int _noise
    cdef set _told                   # cids for which M_DETACH or a refusal was sent since the last tick
    cdef int _free_resumes
    # counters, read at scrape time
    cdef uint64_t _frames_in[32]
    cdef uint64_t _frames_out[32]
    cdef readonly uint64_t bytes_in
    cdef readonly uint64_t bytes_out
    cdef readonly uint64_t stale_epoch

    cdef int receive(self, uint8_t* p, Py_ssize_t n) except -1
    cdef int _dispatch(self, const uint8_t* body, Py_ssize_t n) except -1
    cdef int _flush(self) except -1
    cdef int _gather(self, Flow flow, Piece* pieces, list bases, int* count, Py_ssize_t* total, Py_ssize_t allowance) except -1
    cdef int _piece(self, bytes frame, Piece* pieces, list bases, int* count, Py_ssize_t* total) except -1
    cdef bytes _flow_frame(self, Flow flow, int type)
    cdef bytes _pong(self)
    cdef int _cork(self) except -1
    cdef int _enqueue(self, Source source) except -1
    cdef bint _holds(self, Flow flow) except -1
    cdef int _requeue(self, Flow flow) except -1
    cdef int _gather_urgent(self, Flow flow, Piece* pieces, list bases, int* count, Py_ssize_t* total) except -1
    cdef int _answer(self, int type, const uint8_t* cid, uint64_t epoch, int code, uint64_t seq) except -1
    cdef int settle(self) except -1
    cdef int _flow_noise(self, int weight) except -1
    cdef int _asked(self, double at, uint64_t since) except -1
    cdef Lane _find_lane(self)
    cdef int _relay_data(self, uint8_t* p, Py_ssize_t n) except -1
    cdef int _relay_control(self, Lane lane) except -1
    cdef bint _pass_on(self, Lane lane, int type, const uint8_t* p, Py_ssize_t n, bytes base, Link source) except -1
    cdef int _relay_over(self, Lane lane) except -1
    cdef int _charge(self, Py_ssize_t frames, Py_ssize_t size) except -1
    cdef int _owe(self, Lane lane, uint64_t ack, uint64_t limit) except -1
    cdef bytes _owed(self, Lane lane)
    cdef int _send_through(self) except -1
    cdef int _gather_lane(self, Lane lane, Piece* pieces, list bases, int* count, Py_ssize_t* total, Py_ssize_t allowance) except -1
    cdef Flow _find(self)
    cdef int _begin_data(self) except -1
    cdef int _stranger(self) except -1
    cdef int set_writable(self, bint on) except -1
