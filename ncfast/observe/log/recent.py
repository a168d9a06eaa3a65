"""The last lines of the log, kept in memory for whoever asks the process itself: where the log goes is often not at
hand, and what its reader did not take in time is there too."""

from __future__ import annotations

from collections import deque
from threading import Lock

MAX_LINES = 2000
MAX_BYTES = 1 << 20  # of these lines: some 300 bytes each are usual, and 64 KiB can be


class Recent:
    """The newest lines, within both bounds. May be called from any thread."""

    def __init__(self, lines: int = MAX_LINES, size: int = MAX_BYTES) -> None:
        self._most = lines
        self._most_bytes = size
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._lock = Lock()

    def put(self, line: bytes) -> None:
        with self._lock:
            self._lines.append(line)
            self._bytes += len(line)
            while len(self._lines) > self._most or self._bytes > self._most_bytes:
                self._bytes -= len(self._lines.popleft())

    def lines(self) -> list[bytes]:
        """Oldest first, each with its newline."""
        with self._lock:
            return list(self._lines)
