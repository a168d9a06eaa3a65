"""System calls for which the socket module makes more than one."""

cdef object name_of(int fd, bint peer)
