"""System calls for which the socket module makes more than one."""

cdef object name_of(int fd, bint peer)


cdef class Accepted:
    cdef int _fd                     # -1: taken over, or closed

    cpdef close(self)
