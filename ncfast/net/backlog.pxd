"""Bytes that wait for a socket."""


cdef struct Block:
    # Memory for some of the bytes; they lie behind this.
    Block* next
    Py_ssize_t at                    # the first that is not sent
    Py_ssize_t end                   # behind the last
    Py_ssize_t room                  # bytes of memory


cdef class Backlog:
    cdef Block* _first
    cdef Block* _last
    cdef Py_ssize_t size             # bytes

    cdef int keep(self, const char* p, Py_ssize_t n) except -1
    cdef int flush(self, int fd) except -1
    cdef void drop(self) noexcept
    cdef bytes rest(self)
