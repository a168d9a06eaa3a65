"""A link: many flows over one carrier. Sans-I/O."""

from libc.stdint cimport uint8_t, uint64_t

from ncfast.core.flow cimport Flow
from ncfast._frames cimport FRAME_TYPES, HEADER_SIZE, Header
from ncfast.core.queues cimport Queues
from ncfast.core.relay cimport Lane


cdef class Link(Queues):
    cdef readonly object handler
    cdef readonly str peer
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
    cdef double _ping_sent
    cdef double _ticked_at
    cdef double _pinged_at
    cdef uint64_t _bytes_at_tick
    cdef uint64_t _ping_seq
    # flood control, and the share of a turn
    cdef readonly bint between_hubs
    cdef readonly uint64_t work      # frames received, by what they cost: those that Python looks at count WEIGHTY
    cdef int _noise
    cdef set _told                   # cids for which M_DETACH was sent since the last tick
    cdef set _refused                # whose open or resume was refused since then
    cdef set _refused_before         # and since the one before
    cdef int _free_resumes
    # counters, read at scrape time
    cdef uint64_t _frames_in[FRAME_TYPES]       # 0: of types that we do not know, skipped
    cdef readonly uint64_t bytes_in
    cdef readonly uint64_t stale_epoch

    cdef int receive(self, uint8_t* p, Py_ssize_t n) except -1
    cdef Flow _find(self)
    cdef Lane _find_lane(self)
    cdef bint _flooded(self) except -1
    cdef int _flow_noise(self, int weight) except -1
    cdef int _in_vain(self) except -1
    cdef double _asked(self, double due, uint64_t since) except? -1
    cdef int _begin_data(self) except -1
    cdef int _stranger(self) except -1
    cdef bint _was_told(self, bytes cid) except -1
    cdef int _dispatch(self, const uint8_t* body, Py_ssize_t n) except -1
    cdef int _on_flow(self) except -1
    cdef int _on_resume_ack(self, Flow flow) except -1
    cdef int _on_ping(self) except -1
    cdef int _on_pong(self) except -1
    cdef bint _outdated(self) except -1
    cdef int _on_open(self, bytes payload) except -1
    cdef int _on_resume(self, bytes payload) except -1
    cdef int _relay_data(self, uint8_t* p, Py_ssize_t n) except -1
    cdef int _relay_control(self, Lane lane) except -1
    cdef int _tell_lost(self, bytes cid) except -1
    cdef int _saw(self, Lane lane, int type, uint64_t seq, uint64_t ack, uint64_t limit) except -1
    cdef int _answer(self, int type, const uint8_t* cid, uint64_t epoch, int code, uint64_t seq) except -1
