"""A flow that a hub passes on, between its agent's tunnel and the link to the hub where its client is."""

from libc.stdint cimport uint64_t

from ncfast.core.fifo cimport Fifo
from ncfast.core.ends cimport Path, Source


cdef class Lane(Source):
    """One direction. Its frames come in by one link, under the relay's cid, and leave by `out`."""
    cdef readonly bytes cid
    cdef readonly uint64_t epoch
    cdef readonly Relay relay        # None when the flow is over
    cdef readonly Path out           # None while that link is away
    cdef Fifo queue                  # whole frames that wait for `out`; `unsent_bytes` is their sum
    cdef bint resume_waits           # one of them is M_RESUME
    cdef bint lossy                  # frames were dropped; the receiver is told when the queue has gone
    cdef bint ended                  # M_FIN has passed
    cdef uint64_t end                # its number
    cdef uint64_t ack                # highest that has passed, of the other direction
    cdef uint64_t limit
    cdef uint64_t owed_ack           # highest that came in a frame which had to wait: it goes ahead of what waits
    cdef uint64_t owed_limit
    cdef bint owes                   # and has not gone yet
    cdef bint asked                  # M_RESUME has passed, and its answer has not come by
    cdef int invited                 # M_RESUMEs for which M_DETACH has given cause, and that have not come
    cdef double asked_due            # when the next may come
    cdef uint64_t asked_from         # and its `ack`

    cdef int clear(self) except -1


cdef class Relay:
    cdef readonly bytes cid
    cdef readonly uint64_t epoch
    cdef public object info
    cdef bint opened                 # M_OPEN_ACK has passed, or what says as much
    cdef bint over
    cdef readonly Lane up            # from the agent
    cdef readonly Lane down          # to the agent

    cdef bint saw(self, Lane lane, int type, uint64_t seq, uint64_t ack, uint64_t limit) except -1
