"""A process's JSON log lines, read while it writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.until import wait_until


class EventLog:
    """Parses a growing log file; lines that are not JSON objects are kept in ``stray``."""

    def __init__(self, path: Path, exit_code: Callable[[], int | None]) -> None:
        self.path = path
        self.stray: list[str] = []
        self._exit_code = exit_code
        self._events: list[dict[str, Any]] = []
        self._offset = 0
        self._partial = b""

    def _read(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._offset)
            fresh = file.read()
        self._offset += len(fresh)
        *lines, self._partial = (self._partial + fresh).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if isinstance(event, dict):
                self._events.append(event)
            else:
                self.stray.append(line.decode(errors="replace"))

    def mark(self) -> int:
        """A place in the log: give it as ``after`` to look only at what is written from now on."""
        self._read()
        return len(self._events)

    def events(self, name: str | None = None, *, after: int = 0, **fields: Any) -> list[dict[str, Any]]:
        """Events called ``name`` whose fields equal the given ones."""
        self._read()
        return [
            event
            for event in self._events[after:]
            if (name is None or event.get("event") == name)
            and all(event.get(key) == value for key, value in fields.items())
        ]

    def wait(self, name: str, *, count: int = 1, after: int = 0, **fields: Any) -> dict[str, Any]:
        """The ``count``-th matching event; fails when the process ends first."""
        found: list[dict[str, Any]] = []

        def written() -> dict[str, Any] | None:
            ended = self._exit_code()
            found[:] = self.events(name, after=after, **fields)
            if len(found) >= count:
                return found[count - 1]
            assert ended is None, f"process ended with {ended} before {name} {fields}\n{self.tail(5)}"
            return None

        return wait_until(written, lambda: f"{count} {name} {fields}, {len(found)} so far\n{self.tail(5)}")

    def tail(self, lines: int = 30) -> str:
        """The end of the file, for a failure report."""
        text = self.path.read_text(errors="replace") if self.path.exists() else ""
        return f"--- {self.path.name}\n" + "\n".join(line[:600] for line in text.splitlines()[-lines:])
