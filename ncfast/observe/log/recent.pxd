"""The last lines of the log, kept in memory."""


cdef class Recent:
    cdef object _lines
    cdef object _append
    cdef object _oldest              # takes it
    cdef Py_ssize_t _count
    cdef Py_ssize_t _bytes
    cdef Py_ssize_t _most
    cdef Py_ssize_t _most_bytes

    cpdef put(self, bytes line)
