"""One end of a flow: its opening, its paths, its end and its timers, on the two halves that move its bytes."""

from libc.stdint cimport uint64_t

from ncfast.core.ends cimport Path, Sink
from ncfast.core.sending cimport Sender


cdef class Flow(Sender):
    cdef readonly bytes secret
    cdef public bytes sought         # between hubs: what M_RESUME says behind the secret
    cdef public object info
    cdef Path left                   # the path that has told it to wait (M_DETACH), and may still end it
    # scheduling, the path's business
    cdef bint in_urgent
    cdef int rst_code
    cdef int asks                    # M_RESUMEs on this path without an answer
    cdef double asked_due            # when the next M_RESUME of the peer may come
    cdef uint64_t asked_from         # and its `ack`
    # time
    cdef uint64_t seen
    cdef uint64_t seen_una
    cdef uint64_t seen_taken         # bytes that the socket had taken at the last check
    cdef double asked_sink           # when the half-close timer had run out, and a reader was waited for
    cdef readonly double detached_at

    cpdef bind(self, Sink sink)
    cdef int on_open_ack(self, uint64_t ack, uint64_t limit) except -1
    cpdef accept(self)
    cpdef direct(self, bytes body, bytes sought=*)
    cdef int put_on(self, Path path, bint resumed, uint64_t epoch, Py_ssize_t credit) except -1
    cpdef detach(self)
    cdef int on_rst(self, int code) except -1
    cdef int send_rst(self, int code) except -1
    cdef int end_by(self, int code) except -1
    cdef int finish_end(self, int code) except -1
    cdef bint half_close_waits(self) except -1
    cdef bint starves(self) except -1
    cdef bint quiet(self, double now) noexcept
