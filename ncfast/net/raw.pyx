"""The bare byte stream as a carrier, between hubs: frames follow each other with nothing in between (docs/protocol.md).

The stream has no closing handshake: whoever ends the link says why in a last GOAWAY, and closes.
"""

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from ncfast.net.carrier cimport JOIN_BELOW, TransportCarrier
from ncfast._frames cimport GOAWAY, Header, build_frame
from ncfast.core.queues cimport Piece

from ncfast.core.errors import Reason


cdef class RawCarrier(TransportCarrier):
    """Nothing but frames is to come when it takes over."""

    cdef int _receive(self, uint8_t* p, Py_ssize_t n) except -1:
        self.link.receive(p, n)
        return 0

    cdef int send(self, Piece* pieces, list bases, int count, Py_ssize_t total) except -1:
        cdef int i
        cdef Py_ssize_t at = 0
        cdef bytes out
        cdef uint8_t* p = NULL
        cdef bint whole
        if self._ended:
            return 0
        if total < JOIN_BELOW:
            if count == 1:
                whole = bases[0] is not None and pieces[0].n == PyBytes_GET_SIZE(<bytes>bases[0])
                return self._send(pieces[0].p, pieces[0].n, <bytes>bases[0] if whole else None)
            out = self._room(total, &p)
            for i in range(count):
                memcpy(p + at, pieces[i].p, pieces[i].n)
                at += pieces[i].n
            return self._send(p, total, out)
        return self._write(NULL, 0, pieces, bases, count)

    cdef int end(self, reason, str detail) except -1:
        """Tells the peer why and closes; a peer that does not take even that is cut."""
        cdef Header h
        if self._ended:
            return 0
        self._ended = True
        if reason is Reason.KEEPALIVE_TIMEOUT or reason is Reason.STALLED:
            self.transport.abort()
            return 0
        memset(&h, 0, sizeof(h))
        h.type = GOAWAY
        h.code = reason
        self.transport.write(build_frame(&h, NULL))
        self._close()
        return 0
