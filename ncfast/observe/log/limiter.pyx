"""Token buckets over the names of log events: a flood is thinned in the log and counted exactly elsewhere.

Compiled because each flow has a line. It needs no lock: what is not Python is not interrupted by another thread.
"""

from ncfast.core.bucket cimport Bucket

RATE, BURST = 20.0, 50.0  # lines a second of one event
BUSY_EVENTS = {"flow_closed": (500.0, 5000.0)}  # one line a flow is wanted; 4 us each, 0.2 % of a core
MAX_EVENTS = 512  # names are ours; should one be built from input after all, the rest share a bucket


cdef class _Event:
    """What is known of one event's lines."""

    def __cinit__(self, double rate, double burst, double now):
        self.rate = rate
        self.burst = burst
        self.bucket = Bucket(burst, now)


cdef class EventLimiter:
    """Says whether a line of an event may be written now. May be called from any thread."""

    def __init__(self, clock):
        self.clock = clock
        self._events = {}

    cpdef admit(self, str event):
        """None when the line is held back; otherwise how many of its kind were since the last one written."""
        cdef double now = self.clock()
        cdef _Event known = <_Event>self._events.get(event)
        cdef int held_back
        if known is None:
            known = self._new(event, now)
        if not known.bucket.take(known.rate, known.burst, now):
            known.held_back += 1
            self.suppressed += 1
            return None
        held_back, known.held_back = known.held_back, 0
        return held_back

    cdef _Event _new(self, str event, double now):
        if len(self._events) >= MAX_EVENTS:
            event = "other"
        rate, burst = BUSY_EVENTS.get(event, (RATE, BURST))
        return self._events.setdefault(event, _Event(rate, burst, now))
