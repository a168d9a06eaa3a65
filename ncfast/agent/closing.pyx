"""What is done once for each flow that is over: its dial is given up, it is counted, and it has its line.

Compiled because each flow comes here.
"""

from libc.math cimport rint

from ncfast.agent.info cimport AgentInfo
from ncfast.observe.log.access cimport SILENT

from ncfast.observe import log


cdef class Closing:

    def __init__(self, ground not None):
        self._clock = ground.clock
        self._counts = ground.counts
        self._log = log.access("cid", "connector", "bytes_in", "bytes_out", "duration", "resumes", "handovers",
                               "reason")

    cpdef over(self, Flow flow, reason):
        """The flow has left the agent."""
        cdef AgentInfo info = flow.info
        cdef str label = reason.label
        cdef double duration
        cdef int held_back
        if info.connecting is not None:
            info.connecting.give_up()
        self._counts.closed[label] += 1
        duration = self._clock() - info.since
        held_back = self._log.admit()
        if held_back != SILENT:
            self._log.put((
                flow.cid.hex(), info.connector, flow.rcv_nxt, flow.snd_nxt, rint(duration * 1e6) / 1e6, info.resumes,
                info.handovers, label,
            ), held_back)
