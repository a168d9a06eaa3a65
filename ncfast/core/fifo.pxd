"""What waits in order."""


cdef class Fifo:
    cdef list _ring                  # a power of two; None where nothing waits
    cdef Py_ssize_t _first
    cdef readonly Py_ssize_t size

    cpdef int push(self, object item) except -1
    cpdef object peek(self)
    cpdef object pop(self)
    cdef int _grow(self) except -1
    cpdef bint remove(self, object item) except -1
    cpdef int clear(self) except -1
