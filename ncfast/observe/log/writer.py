"""Log lines leave through a thread: a log pipe that nobody drains must stop the log, never the event loop."""

from __future__ import annotations

import atexit
from queue import SimpleQueue
from threading import Event, Thread
from typing import TextIO

MAX_WAITING = 8192  # lines; at 256-byte values a few MiB when the reader of the log has stopped


class LogWriter:
    """Writes lines in order to ``stream``, which may be replaced; drops and counts them when it is stuck."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.dropped = 0
        self._waiting: SimpleQueue[str | Event] = SimpleQueue()
        self._thread: Thread | None = None

    def put(self, line: str) -> None:
        """Takes one line, without its newline. Never blocks, never raises."""
        if self._waiting.qsize() >= MAX_WAITING:
            self.dropped += 1
            return
        if self._thread is None:
            self._thread = Thread(target=self._run, name="ncfast-log", daemon=True)
            self._thread.start()
            atexit.register(self.flush)
        self._waiting.put(line)

    def flush(self, timeout: float = 1.0) -> bool:
        """Waits until what was put so far is written, at most ``timeout`` seconds; true when it was."""
        if self._thread is None:
            return True
        reached = Event()
        self._waiting.put(reached)
        return reached.wait(timeout)

    def _run(self) -> None:
        lines: list[str] = []
        while True:
            item = self._waiting.get()
            if isinstance(item, str):
                lines.append(item)
                if len(lines) < 256 and not self._waiting.empty():
                    continue  # what waits leaves in one write
            if lines:
                self._write(lines)
                lines = []
            if isinstance(item, Event):
                item.set()

    def _write(self, lines: list[str]) -> None:
        try:
            self.stream.write("\n".join(lines) + "\n")
            self.stream.flush()
        except (OSError, ValueError):  # a closed pipe, a closed file: the hub outlives its log
            self.dropped += len(lines)
