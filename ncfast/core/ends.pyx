"""What a flow stands between: the socket above it, and the link below it, on which it takes its turns with others."""

from libc.stdint cimport uint8_t


cdef class Sink:

    cdef Py_ssize_t deliver(self, const uint8_t* p, Py_ssize_t n) except -1:
        """Takes the bytes (copying what it cannot pass on at once); returns how many still wait for the socket."""
        raise NotImplementedError

    cdef Py_ssize_t deliver_all(self, Span* spans, int count) except -1:
        """The same of several pieces."""
        raise NotImplementedError

    cdef Py_ssize_t waiting(self) except -1:
        raise NotImplementedError

    cdef Py_ssize_t unread(self) except -1:
        """How many bytes the far machine has not taken, those in the kernel included."""
        raise NotImplementedError

    cdef int finish(self) except -1:
        """End of stream after what was delivered."""
        raise NotImplementedError

    cdef int set_reading(self, bint on) except -1:
        raise NotImplementedError

    cdef int release(self, bint reset) except -1:
        """The flow is over: reset the socket, or let it deliver what it has and close."""
        raise NotImplementedError

    cdef int cut(self) except -1:
        """The flow is cut: reset the socket, and let go of what waits there."""
        raise NotImplementedError


cdef class Path:

    cdef int adopt(self, Source flow) except -1:
        """From now on frames of this cid on this path are the flow's."""
        raise NotImplementedError

    cdef int submit(self, Source flow) except -1:
        """The flow owes its peer something."""
        raise NotImplementedError

    cdef int ack_soon(self, Source flow) except -1:
        raise NotImplementedError

    cdef int forget(self, Source flow) except -1:
        """Frames of the flow's cid are nobody's from now on; what the flow still owes is sent."""
        raise NotImplementedError

    cdef int withdraw(self, Source flow) except -1:
        """The flow leaves for another path: nothing of it is sent here any more."""
        raise NotImplementedError

    cdef int drop(self, Source source) except -1:
        """What waits of a relayed direction is not sent."""
        raise NotImplementedError

    cdef int freed(self) except -1:
        """`inflight` has fallen: what the cap held back may go."""
        raise NotImplementedError

    cdef int uncork(self) except -1:
        """What was gathered leaves."""
        raise NotImplementedError

    cdef Py_ssize_t read_size(self) noexcept:
        return FULL_READ


cdef class Source:
    """What takes its turns on a link."""
