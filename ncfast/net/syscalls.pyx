"""System calls for which the socket module makes more than one: it asks for a name to see whether a descriptor is a
socket, for its family, its type and its protocol, and has it not block afterwards."""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAFNOSUPPORT, EAGAIN, EALREADY, EINPROGRESS, EINTR, EINVAL, EISCONN, errno
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as c_close

from ncfast.net.sys_socket cimport SO_ERROR, SOL_SOCKET, getsockopt, setsockopt

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_INET, AF_INET6, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC
    int socket(int family, int type, int protocol)
    int connect(int fd, const sockaddr* address, socklen_t size)
    int accept4(int fd, sockaddr* address, socklen_t* size, int flags)
    int getsockname(int fd, sockaddr* address, socklen_t* size)
    int getpeername(int fd, sockaddr* address, socklen_t* size)

cdef extern from "Python.h":
    str PyUnicode_DecodeASCII(const char* text, Py_ssize_t size, const char* errors)

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char* text, void* address)

cdef extern from "<netdb.h>" nogil:
    enum:
        NI_NUMERICHOST, NI_MAXHOST
    int getnameinfo(const sockaddr* address, socklen_t size, char* host, socklen_t host_size, char* service,
                    socklen_t service_size, int flags)

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        unsigned int s_addr
    struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        unsigned short sin6_port
        unsigned int sin6_flowinfo
        unsigned int sin6_addr
        unsigned int sin6_scope_id
    unsigned short ntohs(unsigned short)
    unsigned int ntohl(unsigned int)
    unsigned short htons(unsigned short)
    unsigned int htonl(unsigned int)

cdef enum:
    LONGEST_IPV4 = 15                    # characters


cdef class Monotonic(Clock):
    """`time.monotonic`."""

    cdef double now(self) except? -1:
        cdef timespec now
        clock_gettime(CLOCK_MONOTONIC, &now)
        return (<long long>now.tv_sec * 1000000000 + now.tv_nsec) / 1e9


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

    def __cinit__(self):
        self._fd = -1

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


cdef class Dialled(Accepted):
    """A socket that connects, without blocking, to a place as `getaddrinfo` has it."""

    def __init__(self, int family, tuple address not None):
        """Raises OSError."""
        self._fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if self._fd < 0 or not self._name(family, address):
            code = errno if self._fd < 0 else EAFNOSUPPORT
            raise OSError(code, os.strerror(code))

    cdef bint _name(self, int family, tuple address) except -1:
        """Whether it is an address of the family."""
        cdef sockaddr_in* four = <sockaddr_in*>&self._where
        cdef sockaddr_in6* six = <sockaddr_in6*>&self._where
        cdef bytes host = (<str>address[0]).partition("%")[0].encode()    # a zone is in a number of its own as well
        memset(&self._where, 0, sizeof(self._where))
        if family == AF_INET:
            self._size = sizeof(sockaddr_in)
            four.sin_family = AF_INET
            four.sin_port = htons(address[1])
            return inet_pton(AF_INET, host, &four.sin_addr) == 1
        if family != AF_INET6:
            return False
        self._size = sizeof(sockaddr_in6)
        six.sin6_family = AF_INET6
        six.sin6_port = htons(address[1])
        if len(address) > 2:
            six.sin6_flowinfo = htonl(address[2])
            six.sin6_scope_id = address[3]
        return inet_pton(AF_INET6, host, &six.sin6_addr) == 1

    def connect(self):
        """0 if the connection stands, or what the kernel says instead."""
        return 0 if connect(self._fd, <sockaddr*>&self._where, self._size) == 0 else errno

    def error(self):
        """What has become of it: 0, or why there is no connection."""
        cdef int code = EINVAL
        cdef socklen_t size = sizeof(code)
        return code if getsockopt(self._fd, SOL_SOCKET, SO_ERROR, &code, &size) == 0 else errno

    def fileno(self):
        return self._fd


def reached_here(str host not None, int port):
    """A connection to a port of this machine's loopback, whose kernel answers before `connect` returns: what connects,
    or the OSError that tells why nothing does. None if `host` is no address there, or there is no answer: it takes a
    dial."""
    cdef Dialled sock = Dialled.__new__(Dialled)
    cdef int family = AF_INET6 if host == "::1" else AF_INET
    cdef int code
    if (family == AF_INET and not host.startswith("127.")) or not sock._name(family, (host, port)):
        return None
    sock._fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    code = errno if sock._fd < 0 else sock.connect()
    if code == EINPROGRESS:
        code = sock.connect()            # what has come of it meanwhile
    if code == 0 or code == EISCONN:
        return sock
    return None if code in (EINPROGRESS, EALREADY, EINTR) else OSError(code, os.strerror(code))


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
        return _ipv4(ntohl(four.sin_addr.s_addr)), ntohs(four.sin_port)
    if getnameinfo(<const sockaddr*>address, size, host, NI_MAXHOST, NULL, 0, NI_NUMERICHOST):
        raise ValueError("an address without a name in numbers")
    return host.decode("ascii"), ntohs(six.sin6_port), ntohl(six.sin6_flowinfo), six.sin6_scope_id


cdef str _ipv4(unsigned int number):
    """Four numbers, as `inet_ntop` writes them by way of `sprintf`."""
    cdef char text[LONGEST_IPV4]
    cdef int n = 0, shift, part
    for shift in range(24, -1, -8):
        part = (number >> shift) & 0xFF
        if part >= 100:
            text[n] = <char>(c"0" + part // 100)
            n += 1
        if part >= 10:
            text[n] = <char>(c"0" + part // 10 % 10)
            n += 1
        text[n] = <char>(c"0" + part % 10)
        n += 1
        if shift:
            text[n] = c"."
            n += 1
    return PyUnicode_DecodeASCII(text, n, NULL)
