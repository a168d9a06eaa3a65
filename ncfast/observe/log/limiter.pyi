"""Token buckets over the names of log events: a flood is thinned in the log and counted exactly elsewhere."""

from collections.abc import Callable

RATE: float
BURST: float
BUSY_EVENTS: dict[str, tuple[float, float]]
MAX_EVENTS: int

class EventLimiter:
    """Says whether a line of an event may be written now. May be called from any thread."""

    clock: Callable[[], float]
    @property
    def suppressed(self) -> int:
        """Of all events, since the start."""

    def __init__(self, clock: Callable[[], float]) -> None: ...
    def admit(self, event: str) -> int | None:
        """None when the line is held back; otherwise how many of its kind were since the last one written."""
