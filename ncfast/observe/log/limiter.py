"""Token buckets over the names of log events: a flood is thinned in the log and counted exactly elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from ncfast.core.bucket import Bucket

RATE, BURST = 20.0, 50.0  # lines a second of one event
BUSY_EVENTS = {"flow_closed": (500.0, 5000.0)}  # one line a flow is wanted; 4 us each, 0.2 % of a core
MAX_EVENTS = 512  # names are ours; should one be built from input after all, the rest share a bucket


class _Event:
    """What is known of one event's lines."""

    __slots__ = ("bucket", "burst", "held_back", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.bucket = Bucket(burst, now)
        self.held_back = 0  # since the last line


class EventLimiter:
    """Says whether a line of an event may be written now. May be called from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.suppressed = 0  # of all events, since the start
        self._events: dict[str, _Event] = {}
        self._lock = Lock()

    def admit(self, event: str) -> int | None:
        """None when the line is held back; otherwise how many of its kind were since the last one written."""
        now = self.clock()
        with self._lock:
            known = self._events.get(event) or self._new(event, now)
            if not known.bucket.take(known.rate, known.burst, now):
                known.held_back += 1
                self.suppressed += 1
                return None
            held_back, known.held_back = known.held_back, 0
            return held_back

    def _new(self, event: str, now: float) -> _Event:
        if len(self._events) >= MAX_EVENTS:
            event = "other"
        rate, burst = BUSY_EVENTS.get(event, (RATE, BURST))
        return self._events.setdefault(event, _Event(rate, burst, now))
