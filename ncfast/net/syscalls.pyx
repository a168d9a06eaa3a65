"""System calls for which the socket module makes more than one: it asks for a name to see whether a descriptor is a
socket, for its family, its type and its protocol, and has it not block afterwards."""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, errno
from posix.unistd cimport close as c_close

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    enum:
        AF_INET, AF_INET6, SOCK_NONBLOCK, SOCK_CLOEXEC
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    int accept4(int fd, sockaddr* address, socklen_t* size, int flags)
    int setsockopt(int fd, int level, int option, const void* value, socklen_t size)
    int getsockname(int fd, sockaddr* address, socklen_t* size)
    int getpeername(int fd, sockaddr* address, socklen_t* size)

cdef extern from "<arpa/inet.h>" nogil:
    enum:
        INET_ADDRSTRLEN
    const char* inet_ntop(int family, const void* address, char* text, socklen_t size)

cdef extern from "<netdb.h>" nogil:
    enum:
        NI_NUMERICHOST, NI_MAXHOST
    int getnameinfo(const sockaddr* address, socklen_t size, char* host, socklen_t host_size, char* service,
                    socklen_t service_size, int flags)

cdef extern from "<netinet/in.h>" nogil:
    struct sockaddr_in:
        unsigned short sin_port
        unsigned int sin_addr            # which it has in a structure of one member
    struct sockaddr_in6:
        unsigned short sin6_port
        unsigned int sin6_flowinfo
        unsigned int sin6_scope_id
    unsigned short ntohs(unsigned short)
    unsigned int ntohl(unsigned int)


def accept(int listening):
    """The descriptor of the next connection, which does not block, and who it is from; None if there is none yet.
    Raises OSError."""
    cdef sockaddr_storage address
    cdef socklen_t size = sizeof(address)
    cdef int fd = accept4(listening, <sockaddr*>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if fd >= 0:
        return fd, _tuple(&address, size)
    if errno == EAGAIN:
        return None
    raise OSError(errno, os.strerror(errno))


cdef class Accepted:
    """An accepted connection that nobody has taken over yet: a descriptor, and what of Python's socket is used of
    it."""

    def __init__(self, int fd):
        self._fd = fd

    def __dealloc__(self):
        self.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def fileno(self):
        """The descriptor, which stays this object's; -1 if it has none any more."""
        return self._fd

    def detach(self):
        """The descriptor, which is the caller's to close from now on."""
        fd, self._fd = self._fd, -1
        return fd

    def setsockopt(self, int level, int option, bytes value not None):
        """Raises OSError."""
        if setsockopt(self._fd, level, option, PyBytes_AS_STRING(value), <socklen_t>PyBytes_GET_SIZE(value)) < 0:
            raise OSError(errno, os.strerror(errno))

    cpdef close(self):
        if self._fd >= 0:
            c_close(self._fd)
            self._fd = -1


cdef object name_of(int fd, bint peer):
    """The address of a socket, or of its peer; None if it has none any more."""
    cdef sockaddr_storage address
    cdef socklen_t size = sizeof(address)
    cdef sockaddr* where = <sockaddr*>&address
    if (getpeername(fd, where, &size) if peer else getsockname(fd, where, &size)) < 0:
        return None
    return _tuple(&address, size)


cdef object _tuple(const sockaddr_storage* address, socklen_t size):
    """As the socket module has it."""
    cdef char host[NI_MAXHOST]
    cdef const sockaddr_in* four = <const sockaddr_in*>address
    cdef const sockaddr_in6* six = <const sockaddr_in6*>address
    if address.ss_family != AF_INET and address.ss_family != AF_INET6:
        return ""                        # a Unix socket's client has no name
    if address.ss_family == AF_INET:
        inet_ntop(AF_INET, &four.sin_addr, host, INET_ADDRSTRLEN)
        return host.decode("ascii"), ntohs(four.sin_port)
    if getnameinfo(<const sockaddr*>address, size, host, NI_MAXHOST, NULL, 0, NI_NUMERICHOST):
        raise ValueError("an address without a name in numbers")
    return host.decode("ascii"), ntohs(six.sin6_port), ntohl(six.sin6_flowinfo), six.sin6_scope_id
