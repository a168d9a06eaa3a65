"""Token buckets over the names of log events: a flood is thinned in the log and counted exactly elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

RATE, BURST = 20.0, 50.0  # lines a second of one event
BUSY_EVENTS = {"flow_closed": (500.0, 5000.0)}  # one line a flow is wanted; 30 us each, 1.5 % of a core
MAX_EVENTS = 512  # names are ours; should one be built from input after all, the rest share a bucket


class EventLimiter:
    """Says whether a line of an event may be written now. May be called from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.suppressed = 0  # of all events, since the start
        self._buckets: dict[str, list[float]] = {}  # tokens, filled at, held back since the last line
        self._lock = Lock()

    def admit(self, event: str) -> int | None:
        """None when the line is held back; otherwise how many of its kind were since the last one written."""
        rate, burst = BUSY_EVENTS.get(event, (RATE, BURST))
        now = self.clock()
        with self._lock:
            bucket = self._buckets.get(event)
            if bucket is None:
                if len(self._buckets) >= MAX_EVENTS:
                    event = "other"
                bucket = self._buckets.setdefault(event, [burst, now, 0])
            tokens = min(burst, bucket[0] + max(0.0, now - bucket[1]) * rate)
            bucket[1] = now
            if tokens < 1.0:
                bucket[0] = tokens
                bucket[2] += 1
                self.suppressed += 1
                return None
            bucket[0] = tokens - 1.0
            held_back = int(bucket[2])
            bucket[2] = 0
            return held_back
