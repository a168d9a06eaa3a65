"""System calls for which the socket module makes more than one."""

from ncfast.core.clock cimport Clock
from ncfast.net.sys_socket cimport socklen_t

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family

cdef object name_of(int fd, bint peer)


cdef class Monotonic(Clock):
    pass


cdef class Accepted:
    cdef int _fd                     # -1: taken over, or closed

    cpdef close(self)


cdef class Dialled(Accepted):
    cdef sockaddr_storage _where
    cdef socklen_t _size

    cdef bint _name(self, int family, tuple address) except -1
