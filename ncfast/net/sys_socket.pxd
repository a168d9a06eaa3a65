"""Of <sys/socket.h>, what several modules call: declarations alone, there is no module behind them."""

from posix.uio cimport iovec


cdef extern from "<sys/socket.h>" nogil:
    enum:
        SOL_SOCKET, SO_ERROR, MSG_NOSIGNAL, MSG_DONTWAIT
    ctypedef unsigned int socklen_t
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t send(int fd, const void* at, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    int getsockopt(int fd, int level, int option, void* value, socklen_t* size)
    int setsockopt(int fd, int level, int option, const void* value, socklen_t size)
