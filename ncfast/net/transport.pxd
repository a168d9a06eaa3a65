"""The transport of a flow's plain socket, and the epoll set that all of them are in."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ncfast.net.backlog cimport Backlog
from ncfast.net.socket cimport SocketEnd
from ncfast.net.stream cimport Stream


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data


cdef enum:
    BATCH = 256                      # events a turn of the loop; what is left is told in the next


cdef class Poller:
    cdef object _loop
    cdef int _epoll
    cdef uint32_t _generation        # of the last socket taken in
    cdef list _transports            # by descriptor
    cdef list _ready                 # those that are to be read again in the next turn
    cdef list _over                  # those whose end is to be told
    cdef bint _busy                  # events are being told
    cdef bint _scheduled             # the next turn is asked for
    cdef object _turn
    cdef epoll_event _events[BATCH]

    cdef int take(self, SocketTransport transport) except -1
    cdef int register(self, SocketTransport transport, int how, uint32_t events) except -1
    cdef int forget(self, SocketTransport transport) except -1
    cdef int read_later(self, SocketTransport transport) except -1
    cdef int end_later(self, SocketTransport transport) except -1
    cdef int schedule(self) except -1
    cdef int end_them(self) except -1


cdef class SocketTransport(Stream):
    cdef Poller _poller
    cdef object _protocol
    cdef SocketEnd _end              # the protocol, if it is one
    cdef object _sock                # for those who ask for it
    cdef object _error               # that ended the connection
    cdef Backlog _backlog            # None: nothing waits
    cdef Py_ssize_t _high
    cdef Py_ssize_t _low
    cdef int _fd
    cdef uint32_t _generation        # which of the sockets that had this descriptor it is
    cdef bint _lent                  # somebody has asked for it: a socket that is let go of closes its descriptor
    cdef bint _reading               # the protocol takes bytes
    cdef bint _readable              # the kernel may have some
    cdef bint _to_the_end            # or more than it gives in one read: the end, an error, urgent data
    cdef bint _queued                # is to be read in the next turn
    cdef bint _eof_in
    cdef bint _broken                # the kernel has told of an error
    cdef bint _eof_out
    cdef bint _blocked               # the protocol was told to pause writing
    cdef bint _watches_writing       # the kernel tells when it has room
    cdef bint _resets                # closing is a reset
    cdef bint _closing
    cdef bint _in_order              # it was `close` that ended the connection
    cdef bint _over                  # its end is to be told, or was

    cdef int tune(self, int notsent_lowat) except -1
    cdef int start(self) except -1
    cdef int told(self, uint32_t events) except -1
    cdef int serve(self) except -1
    cdef int read(self) except -1
    cdef int ended(self) except -1
    cdef int break_off(self) except -1
    cdef int keep(self, const uint8_t* p, Py_ssize_t n) except -1
    cdef int watch_writing(self) except -1
    cdef int flush(self) except -1
    cdef int shut(self) except? -1
    cdef int fail(self, exc) except -1
    cdef int failed(self, str where, exc) except -1
    cdef int end(self) except -1
