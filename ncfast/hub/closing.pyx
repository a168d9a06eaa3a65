"""What is done once for each client's flow that is over: it is nobody's any more, it is counted, and it has its line.

Compiled because each flow comes here.
"""

from libc.math cimport rint

from ncfast.hub.info cimport ClientInfo
from ncfast.observe.log.access cimport SILENT

from ncfast.observe import log


cdef class Closing:

    def __init__(self, ground not None, Opens opens not None):
        self._clock = ground.clock
        self._stats = ground.stats
        self._opens = opens
        self._log = log.access("cid", "listener", "connector", "client", "agent_id", "path", "bytes_in", "bytes_out",
                               "duration", "resumes", "handovers", "reason")

    cpdef over(self, Flow flow, reason):
        """The flow has left the hub."""
        cdef ClientInfo info = flow.info
        cdef str label = reason.label
        cdef double duration
        cdef int held_back
        self._opens.closed(flow)
        duration = self._clock() - info.accepted_at
        info.counts.closed(label, flow.snd_nxt, flow.rcv_nxt)
        self._stats.flow_duration.observe(duration)
        held_back = self._log.admit()
        if held_back != SILENT:
            self._log.put((
                flow.cid.hex(), info.name, info.key[1], info.ends, info.agent_key.partition("/")[2], info.way(),
                flow.snd_nxt, flow.rcv_nxt, rint(duration * 1e6) / 1e6, info.resumes, info.handovers, label,
            ), held_back)
