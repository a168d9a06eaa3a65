"""Bytes that wait for a socket: copies, in blocks of memory that go back as they are sent."""

import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.uio cimport iovec

from ncfast.net.sys_socket cimport MSG_DONTWAIT, MSG_NOSIGNAL, msghdr, sendmsg

cdef enum:
    LEAST = 4096                 # bytes of memory that a block takes
    LARGE = 65536                # and one for pieces of at least a quarter of it, as they come of bulk
    SPARE = 32                   # large blocks that are kept: what malloc gives back to the system is zeroed, page by
                                 # page, each time that it is taken anew
    VECTORS = 16                 # blocks a write


cdef Block* spare = NULL
cdef int spares = 0


cdef Block* new_block(Py_ssize_t n) noexcept:
    """With room for `n` bytes, or fewer, and at most four times as many. NULL: there is no memory."""
    global spare, spares
    cdef Block* block
    cdef Py_ssize_t size = max(n + <Py_ssize_t>sizeof(Block), <Py_ssize_t>LEAST)
    if size > LARGE // 4:
        size = LARGE
    if size == LARGE and spare is not NULL:
        block, spare = spare, spare.next
        spares -= 1
    else:
        block = <Block*>malloc(size)
        if block is NULL:
            return NULL
        block.room = size - sizeof(Block)
    block.next = NULL
    block.at = block.end = 0
    return block


cdef void free_block(Block* block) noexcept:
    global spare, spares
    if block.room == LARGE - sizeof(Block) and spares < SPARE:
        block.next, spare = spare, block
        spares += 1
    else:
        free(block)


cdef inline char* bytes_of(Block* block) noexcept:
    return <char*>(block + 1)


cdef class Backlog:
    """Copies of what the kernel did not take, in order."""

    def __dealloc__(self):
        self.drop()

    cdef int keep(self, const char* p, Py_ssize_t n) except -1:
        """Raises MemoryError; then they are not kept whole."""
        cdef Block* block = self._last
        cdef Py_ssize_t some
        while n:
            if block is NULL or block.end == block.room:
                block = new_block(n)
                if block is NULL:
                    raise MemoryError
                if self._last is NULL:
                    self._first = block
                else:
                    self._last.next = block
                self._last = block
            some = min(n, block.room - block.end)
            memcpy(bytes_of(block) + block.end, p, some)
            block.end += some
            self.size += some
            p += some
            n -= some
        return 0

    cdef int flush(self, int fd) except -1:
        """Sends as much as the kernel takes. Raises OSError."""
        cdef iovec vectors[VECTORS]
        cdef msghdr message
        cdef Block* block
        cdef Py_ssize_t asked, sent
        memset(&message, 0, sizeof(message))
        message.msg_iov = vectors
        while self._first is not NULL:
            asked, message.msg_iovlen, block = 0, 0, self._first
            while block is not NULL and message.msg_iovlen < VECTORS:
                vectors[message.msg_iovlen].iov_base = bytes_of(block) + block.at
                vectors[message.msg_iovlen].iov_len = block.end - block.at
                asked += block.end - block.at
                message.msg_iovlen += 1
                block = block.next
            sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent < 0:
                if errno == EAGAIN:
                    return 0
                if errno == EINTR:
                    continue
                raise OSError(errno, os.strerror(errno))
            self.size -= sent
            asked -= sent
            while sent:
                block = self._first
                if sent < block.end - block.at:
                    block.at += sent
                    return 0
                sent -= block.end - block.at
                self._first = block.next
                free_block(block)
            if self._first is NULL:
                self._last = NULL
            if asked:
                return 0                 # it is full
        return 0

    cdef void drop(self) noexcept:
        """Gives all memory back."""
        cdef Block* block
        while self._first is not NULL:
            block = self._first
            self._first = block.next
            free_block(block)
        self._last = NULL
        self.size = 0

    cdef bytes rest(self):
        """A copy of all."""
        cdef Block* block = self._first
        cdef list pieces = []
        while block is not NULL:
            pieces.append(PyBytes_FromStringAndSize(bytes_of(block) + block.at, block.end - block.at))
            block = block.next
        return b"".join(pieces)
