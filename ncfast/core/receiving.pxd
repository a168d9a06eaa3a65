"""The half of a flow that receives, from its path to its socket."""

from libc.stdint cimport uint8_t, uint64_t

from ncfast.core.context cimport FlowBase


cdef class Receiver(FlowBase):
    cdef readonly uint64_t rcv_nxt
    cdef readonly uint64_t rcv_limit # granted
    cdef uint64_t rcv_acked          # last told
    cdef readonly Py_ssize_t window
    cdef list early                  # bytes that came before the target was connected
    # what was lost on the way
    cdef bint asked_again            # a gap was seen and M_RESUME sent
    cdef bint gap_waits              # a gap was seen, and it was too early to ask
    cdef double gap_at               # when M_RESUME for lost frames was sent
    cdef uint64_t gap_from           # and its `ack`
    # scheduling, the path's business
    cdef int ack_waiting             # 0, or which of the path's queues it waits in
    cdef uint64_t ack_mark           # rcv_acked when the delay began
    # window tuning
    cdef double far_rtt              # seconds that a relay adds to the path's round trip
    cdef double tune_since
    cdef uint64_t tune_from

    cdef int on_data(self, uint64_t seq, const uint8_t* p, Py_ssize_t n) except -1
    cdef int on_drained(self) except -1
    cdef int consider_ack(self) except -1
    cdef uint64_t ack_value(self) noexcept
    cdef uint64_t grant(self) except? 0
    cdef bint may_grow(self) noexcept
    cdef int gap(self, bint told) except -1
    cdef int ask_late(self, double now) except -1
    cdef int ask_again(self) except -1
    cdef int on_fin(self, uint64_t seq) except -1
    cdef int deliver_fin(self) except -1
