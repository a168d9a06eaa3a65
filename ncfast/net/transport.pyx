"""The transport of a flow's plain socket, and the epoll set that all of them are in.

Theory of operation. Each socket is registered once, edge-triggered, and once more when it has its first backlog, for
most never have one and would be told of room that they do not want: pausing, resuming and a backlog are flags here. An
edge says that something has changed since the kernel was last asked; what it has said is remembered (`_readable`) until
a read shows that there is no more. A read that is shorter than asked for shows it, unless the kernel has also told of
an end, an error or urgent data, at which reads stop short. A socket that could be read on, because it has had its share
of a turn or because its protocol has just resumed, is served again in the next turn of the loop. Edges for writing need
no memory: one comes after each write that the kernel did not take whole.

The set's own descriptor is one reader on the loop. Descriptors are closed behind the events of a batch, never among
them, and an event names the generation of its socket beside its descriptor: it never meets another connection.
"""

import errno
import os
import socket as sockets

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, errno as c_errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.uio cimport iovec
from posix.unistd cimport close as c_close

from ncfast.core.ends cimport HELD, Span
from ncfast.net.backlog cimport Backlog
from ncfast.net.socket cimport SocketEnd
from ncfast.net.stream cimport Stream
from ncfast.net.sys_socket cimport (
    MSG_DONTWAIT, MSG_NOSIGNAL, SO_ERROR, SOL_SOCKET, getsockopt, msghdr, send, sendmsg, setsockopt, socklen_t,
)
from ncfast.net.syscalls cimport name_of

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLLERR, EPOLLHUP
        EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    const uint32_t EPOLLET
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        SO_LINGER, SHUT_WR
    struct linger:
        int l_onoff
        int l_linger
    ssize_t recv(int fd, void* at, size_t size, int flags)
    int shutdown(int fd, int how)

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef extern from "<sys/ioctl.h>" nogil:
    enum:
        TIOCOUTQ
    int ioctl(int fd, unsigned long request, ...)

cdef enum:
    TCP_NOTSENT_LOWAT = 25       # linux/tcp.h
    READ_TURN = 262144           # bytes read from a socket before the next has its turn
    SCRATCH = 65536              # bytes a read for a protocol that brings no memory
    MASK = 0xFFFFFFFF

cdef uint32_t READING = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET
cdef uint32_t SHORT_READS = EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR
cdef uint8_t scratch[SCRATCH]    # one read is in the air at a time


cdef object failure(int code):
    return OSError(code, os.strerror(code))


cdef class Poller:
    """The epoll set of a loop's plain sockets."""

    def __cinit__(self, loop):
        self._loop = loop
        self._transports = []
        self._ready = []
        self._over = []
        self._turn = self._on_turn
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self._epoll < 0:
            raise failure(c_errno)
        loop.add_reader(self._epoll, self.poll)

    def __dealloc__(self):
        if self._epoll >= 0:
            c_close(self._epoll)

    def adopt(self, sock, protocol, int notsent_lowat=-1):
        """Takes the socket over and puts it under `protocol`, whose `connection_made` has been called when this
        returns. The socket is tuned for a flow's end (`tune_end`), or is given here what it needs from its first byte
        on, if `notsent_lowat` says with how much unsent. Raises OSError; the socket is closed then."""
        cdef SocketTransport transport = SocketTransport.__new__(SocketTransport)
        transport._fd = sock.detach()
        if notsent_lowat >= 0:
            transport.tune(notsent_lowat)
        transport._poller = self
        transport.set_protocol(protocol)
        self.take(transport)
        transport.start()
        return transport

    cdef int take(self, SocketTransport transport) except -1:
        cdef int fd = transport._fd
        self._generation += 1
        transport._generation = self._generation
        self.register(transport, EPOLL_CTL_ADD, READING)
        if fd >= len(self._transports):
            self._transports.extend([None] * (fd + 1 - len(self._transports)))
        self._transports[fd] = transport
        return 0

    cdef int register(self, SocketTransport transport, int how, uint32_t events) except -1:
        cdef epoll_event event
        event.events = events
        event.data.u64 = <uint64_t>transport._generation << 32 | <uint32_t>transport._fd
        if epoll_ctl(self._epoll, how, transport._fd, &event) < 0:
            raise failure(c_errno)
        return 0

    cdef int forget(self, SocketTransport transport) except -1:
        self._transports[transport._fd] = None
        return 0

    cdef int read_later(self, SocketTransport transport) except -1:
        if not transport._queued:
            transport._queued = True
            self._ready.append(transport)
            self.schedule()
        return 0

    cdef int end_later(self, SocketTransport transport) except -1:
        self._over.append(transport)
        return self.schedule()

    cdef int schedule(self) except -1:
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)
        return 0

    def poll(self):
        """Tells what news the kernel has of the sockets by now."""
        cdef SocketTransport transport
        cdef uint64_t which
        cdef int i, n
        n = epoll_wait(self._epoll, self._events, BATCH, 0)
        self._busy = True
        try:
            for i in range(n):
                which = self._events[i].data.u64
                transport = self._transports[which & MASK]
                if transport is not None and transport._generation == which >> 32:
                    transport.told(self._events[i].events)
        finally:
            self._busy = False
            self.end_them()

    def _on_turn(self):
        """Sockets that were left to this turn."""
        cdef SocketTransport transport
        cdef list ready = self._ready
        self._scheduled = False
        self._ready = []
        self._busy = True
        try:
            for transport in ready:
                transport._queued = False
                transport.serve()
        finally:
            self._busy = False
            self.end_them()

    cdef int end_them(self) except -1:
        """Ends of connections are told, and descriptors closed."""
        cdef SocketTransport transport
        cdef list over = self._over
        if over:
            self._over = []
            for transport in over:
                transport.end()
        if self._over or self._ready:
            self.schedule()
        return 0


cdef class SocketTransport(Stream):
    """A connected TCP socket under an asyncio protocol: a `SocketEnd`, or one with `data_received`.

    The socket is closed by a reset until it is known that it may be in order. Calls are those of asyncio's transports,
    `connection_lost` comes in a later turn, with the error that ended the connection.
    """

    def __cinit__(self):
        self._fd = -1
        self._high = 65536
        self._low = 16384
        self._reading = True
        self._resets = True

    def __dealloc__(self):
        if self._fd >= 0 and not self._lent:
            c_close(self._fd)

    cdef int tune(self, int notsent_lowat) except -1:
        """As `tune_young`, which says why; of a connection that takes no options any more an event will tell."""
        cdef linger reset
        cdef int on = 1
        reset.l_onoff = 1
        reset.l_linger = 0
        setsockopt(self._fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset))
        setsockopt(self._fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        setsockopt(self._fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &notsent_lowat, sizeof(notsent_lowat))
        return 0

    cdef int start(self) except -1:
        try:
            if self._end is not None:
                self._end.connection_made(self)
            else:
                self._protocol.connection_made(self)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self.failed("connection_made", exc)
        return 0

    # information

    def get_extra_info(self, name, default=None):
        """`socket` is for options and addresses; it is closed with the connection."""
        found = None
        if self._fd >= 0:
            if name == "socket":
                if self._sock is None:
                    self._sock = sockets.socket(fileno=self._fd)
                    self._lent = True
                found = self._sock
            elif name == "sockname" or name == "peername":
                found = name_of(self._fd, name == "peername")
        return default if found is None else found

    def set_protocol(self, protocol):
        self._protocol = protocol
        self._end = protocol if isinstance(protocol, SocketEnd) else None

    def is_reading(self):
        return self._reading and not self._closing

    # what the kernel tells

    cdef int told(self, uint32_t events) except -1:
        if events & (EPOLLIN | SHORT_READS) and not self._eof_in:
            self._readable = True
            if events & SHORT_READS:
                self._to_the_end = True
        if events & EPOLLERR:
            self._broken = True
        if self._readable and not self._queued:
            self.serve()
        if self._backlog is not None and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            try:
                self.flush()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as exc:
                self.failed("resume_writing", exc)
        return self.break_off()

    cdef int serve(self) except -1:
        """Reads."""
        try:
            self.read()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self.failed("reading", exc)
        return self.break_off()

    # reading

    cdef int read(self) except -1:
        cdef SocketEnd end
        cdef uint8_t* at
        cdef Py_ssize_t size, n, done = 0
        while self._readable and self._reading and not self._closing:
            if done >= READ_TURN:
                self._poller.read_later(self)
                return 0
            end = self._end
            if end is not None:
                size = end.reserve(&at)
            else:
                at, size = scratch, SCRATCH
            n = recv(self._fd, at, size, MSG_DONTWAIT)
            if n < 0:
                if c_errno == EAGAIN:
                    self._readable = self._to_the_end = False
                elif c_errno != EINTR:
                    self._readable = False
                    self.fail(failure(c_errno))
            elif n == 0:
                self.ended()
            else:
                done += n
                if n < size and not self._to_the_end:
                    self._readable = False
                if end is not None:
                    end.received(n)
                else:
                    self._protocol.data_received(PyBytes_FromStringAndSize(<char*>at, n))
        return 0

    cdef int ended(self) except -1:
        """The far side has ended its direction."""
        self._eof_in = True
        self._readable = False
        if not (self._protocol.eof_received() if self._end is None else self._end.eof_received()):
            self.close()
        return 0

    cdef int break_off(self) except -1:
        """An error that no read is to meet: it is behind the far side's end, or a flow's window is full, and its end
        reads the rest by itself. Where there is no memory for that, it waits until there is, and is asked for again by
        `pause_reading`."""
        cdef int code = 0
        cdef socklen_t size = sizeof(code)
        if not self._broken or self._over:
            return 0
        if not self._eof_in and (self._reading or self._end is None or self._end.has_no_room()):
            return 0
        if getsockopt(self._fd, SOL_SOCKET, SO_ERROR, &code, &size) == 0 and code:
            self.fail(failure(code))
        return 0

    cpdef pause_reading(self):
        self._reading = False
        self.break_off()

    cpdef resume_reading(self):
        if not self._reading and not self._closing:
            self._reading = True
            if self._readable:
                self._poller.read_later(self)

    cdef Py_ssize_t receive(self, uint8_t* at, Py_ssize_t size) except -1:
        return 0 if self._fd < 0 else max(0, recv(self._fd, at, size, MSG_DONTWAIT))

    # writing

    cpdef set_write_buffer_limits(self, Py_ssize_t high, Py_ssize_t low):
        self._high = high
        self._low = low

    cpdef Py_ssize_t get_write_buffer_size(self) except -1:
        return 0 if self._backlog is None else self._backlog.size

    cpdef write(self, data):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.send(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int send(self, const uint8_t* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t sent = 0
        if self._closing or n <= 0:
            return 0
        if self._eof_out:
            raise RuntimeError("write after write_eof")
        if self._backlog is None:
            sent = send(self._fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent == n:
                return 0
            if sent < 0:
                if c_errno != EAGAIN and c_errno != EINTR:
                    return self.fail(failure(c_errno))
                sent = 0
        return self.keep(p + sent, n - sent)

    cdef int send_all(self, Span* spans, int count) except -1:
        cdef iovec vectors[HELD]
        cdef msghdr message
        cdef Py_ssize_t sent
        cdef int i
        if count == 1 or self._backlog is not None or self._closing or self._eof_out:
            return Stream.send_all(self, spans, count)
        for i in range(count):
            vectors[i].iov_base = <void*>spans[i].p
            vectors[i].iov_len = spans[i].n
        memset(&message, 0, sizeof(message))
        message.msg_iov = vectors
        message.msg_iovlen = count
        sent = sendmsg(self._fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
        if sent < 0:
            if c_errno != EAGAIN and c_errno != EINTR:
                return self.fail(failure(c_errno))
            sent = 0
        for i in range(count):
            if sent < spans[i].n:
                self.keep(spans[i].p + sent, spans[i].n - sent)
            sent = max(sent - spans[i].n, <Py_ssize_t>0)
        return 0

    cdef int keep(self, const uint8_t* p, Py_ssize_t n) except -1:
        """What the kernel has not taken."""
        if self._over:
            return 0
        try:
            if self._backlog is None:
                self.watch_writing()
                self._backlog = Backlog.__new__(Backlog)
            self._backlog.keep(<const char*>p, n)
        except (MemoryError, OSError) as exc:
            return self.fail(exc)
        if self._backlog.size > self._high and not self._blocked:
            self._blocked = True
            self._protocol.pause_writing()
        return 0

    cdef int watch_writing(self) except -1:
        """The first backlog; room that the kernel has by now is told as well."""
        if not self._watches_writing:
            self._poller.register(self, EPOLL_CTL_MOD, READING | EPOLLOUT)
            self._watches_writing = True
        return 0

    cdef int flush(self) except -1:
        """The kernel has room for the backlog; an edge will tell when it has again."""
        try:
            self._backlog.flush(self._fd)
        except OSError as exc:
            return self.fail(exc)
        cdef Py_ssize_t left = self._backlog.size
        if left == 0:
            self._backlog = None
        if self._blocked and left <= self._low:
            self._blocked = False
            self._protocol.resume_writing()
        if self._backlog is None and not self._over:
            if self._closing:
                self._over = True
                self._poller.end_later(self)
            elif self._eof_out:
                self.shut()              # an error of it is told as one of the connection
        return 0

    cpdef write_eof(self):
        if self._closing or self._eof_out:
            return
        self._eof_out = True
        if self._backlog is None and self.shut() < 0:
            raise failure(c_errno)

    cdef int shut(self) except? -1:
        return shutdown(self._fd, SHUT_WR)

    # ending

    cdef int closes_by_reset(self, bint on) except -1:
        cdef linger how
        if on != self._resets and self._fd >= 0:
            self._resets = on
            how.l_onoff = on
            how.l_linger = 0
            setsockopt(self._fd, SOL_SOCKET, SO_LINGER, &how, sizeof(how))
        return 0

    cdef Py_ssize_t unacknowledged(self) except -1:
        cdef int count = 0
        if self._fd < 0 or ioctl(self._fd, TIOCOUTQ, &count) < 0:
            return 0
        return count

    cpdef close(self):
        if not self._closing:
            self._closing = self._in_order = True
            if self._backlog is None:
                self._over = True
                self._poller.end_later(self)

    cdef int close_at_once(self) except -1:
        if not self._closing and self._backlog is None and not self._poller._busy:
            self._closing = self._in_order = self._over = True
            return self.end()
        self.close()
        return 0

    cpdef abort(self):
        self._in_order = False
        self.fail(None)

    cdef int failed(self, str where, exc) except -1:
        """A defect of the protocol's."""
        self._poller._loop.call_exception_handler(
            {"message": f"{where} failed", "exception": exc, "transport": self, "protocol": self._protocol}
        )
        self._in_order = False
        return self.fail(exc)

    cdef int fail(self, exc) except -1:
        """The connection is over, and what waits for it."""
        if not self._over:
            self._over = self._closing = True
            if exc is not None:
                self._in_order = False
            self._error = exc
            self._backlog = None
            self._poller.end_later(self)
        return 0

    cdef int end(self) except -1:
        cdef SocketEnd end = self._end
        protocol, self._protocol, self._end = self._protocol, None, None
        try:
            if end is not None:
                end.connection_lost(self._error)
            else:
                protocol.connection_lost(self._error)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self._poller._loop.call_exception_handler(
                {"message": "connection_lost failed", "exception": exc, "transport": self, "protocol": protocol}
            )
        finally:
            if self._in_order:
                self.closes_by_reset(False)
            self._poller.forget(self)
            if self._sock is not None:
                self._sock.detach()
                self._sock = None
            c_close(self._fd)
            self._fd = -1
        return 0

    # given up, and taken over

    cpdef detach(self):
        if self._over:
            return None
        unsent = b"" if self._backlog is None else self._backlog.rest()
        sock = self.get_extra_info("socket")
        epoll_ctl(self._poller._epoll, EPOLL_CTL_DEL, self._fd, NULL)
        self._poller.forget(self)
        self._closing = self._over = True
        self._fd, self._sock, self._protocol, self._end, self._backlog = -1, None, None, None, None
        return sock, unsent

    cpdef inherit(self, bytes unsent, bint eof_in, bint eof_out):
        self._eof_in = eof_in
        if unsent:
            self.write(unsent)
            if eof_out:
                self.write_eof()
        else:
            self._eof_out = eof_out
