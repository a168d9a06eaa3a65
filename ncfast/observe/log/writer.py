"""Log lines leave through a thread: a log pipe that nobody drains must stop the log, never the event loop.

To wake a thread costs many times the line: a futex, and the interpreter's lock handed over and back. So it is woken
for the first line after a rest, and then gathers: what comes within `GATHER` leaves together, in the order in which it
came.
"""

from __future__ import annotations

import atexit
import os
import select
from collections import deque
from io import UnsupportedOperation
from threading import Event, Lock, Thread
from typing import TextIO

MAX_WAITING = 8192  # lines; at 256-byte values a few MiB when the reader of the log has stopped
GATHER = 0.05  # seconds; no longer than a person who follows the log would notice


class LogWriter:
    """Writes lines in order to ``stream``, which may be replaced; drops and counts them when it is stuck."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.dropped = 0
        self._waiting: deque[bytes | Event] = deque()
        self._thread: Thread | None = None
        self._starting = Lock()
        self._bell = Event()
        self._rests = True  # the thread: nobody looks at what waits until the bell rings

    def put(self, line: bytes, at_once: bool = True) -> None:
        """Takes one line, with its newline. Never blocks. One that need not leave at once may wait for `GATHER`."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(line)
        if at_once or self._rests:
            self._ring()

    def flush(self, timeout: float = 1.0) -> bool:
        """Waits until what was put so far is written, at most ``timeout`` seconds; true when it was."""
        if self._thread is None:
            return True
        reached = Event()
        self._waiting.append(reached)
        self._ring()
        return reached.wait(timeout)

    def _ring(self) -> None:
        if self._thread is None:
            self._start()
        self._rests = False
        self._bell.set()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = Thread(target=self._run, name="ncfast-log", daemon=True)
                thread.start()
                self._thread = thread
                atexit.register(self.flush)

    def _run(self) -> None:
        while True:
            self._rests = True  # before the look: a line that comes after it rings
            if not self._waiting:
                self._bell.wait()
            self._rests = False
            self._bell.clear()  # before the look as well
            self._write_waiting()
            self._bell.wait(GATHER)

    def _write_waiting(self) -> None:
        """In pieces that a pipe takes whole or not at all, so that lines of processes that share it do not mix."""
        piece: list[bytes] = []
        size = 0
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, Event):
                self._write(piece)
                piece, size = [], 0
                item.set()
                continue
            if size + len(item) > select.PIPE_BUF:
                self._write(piece)
                piece, size = [], 0
            piece.append(item)
            size += len(item)
        self._write(piece)

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        data = b"".join(lines)
        try:
            try:
                descriptor = self.stream.fileno()
            except UnsupportedOperation:  # in memory
                self.stream.write(data.decode())
                return
            while data:
                try:
                    data = data[os.write(descriptor, data) :]
                except BlockingIOError:  # made so by somebody who shares it
                    room = select.poll()
                    room.register(descriptor, select.POLLOUT)
                    room.poll()
        except (OSError, ValueError):  # a closed pipe, a closed file: the hub outlives its log
            self.dropped += len(lines)
