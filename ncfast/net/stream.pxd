"""What the socket end of a flow stands on."""

from libc.stdint cimport uint8_t

from ncfast.core.ends cimport Span


cdef class Stream:
    # asyncio's
    cpdef set_write_buffer_limits(self, Py_ssize_t high, Py_ssize_t low)
    cpdef Py_ssize_t get_write_buffer_size(self) except -1
    cpdef write(self, data)
    cpdef write_eof(self)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef close(self)
    cpdef abort(self)
    cpdef detach(self)
    cpdef inherit(self, bytes unsent, bint eof_in, bint eof_out)

    # beyond asyncio's
    cdef int send(self, const uint8_t* p, Py_ssize_t n) except -1
    cdef int send_all(self, Span* spans, int count) except -1
    cdef Py_ssize_t receive(self, uint8_t* at, Py_ssize_t size) except -1
    cdef int close_at_once(self) except -1
    cdef int closes_by_reset(self, bint on) except -1
    cdef Py_ssize_t unacknowledged(self) except -1
