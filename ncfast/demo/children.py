"""Child processes of the demo: real `ncfast` commands, observed through their JSON log, always reaped."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import defaultdict, deque
from typing import Any, NoReturn

from ncfast.errors import NcfastError

_STOP_SEC = 5  # from SIGTERM to SIGKILL; the demo's configuration drains within one second


class ChildEnded(NcfastError):
    """A child ended although it was still needed; the text closes with its last log lines."""


class Child:
    """One `python -m ncfast …` process; use it as a context manager."""

    def __init__(self, *arguments: str) -> None:
        self.name = arguments[0]
        self._arguments = arguments
        self._events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._last_lines: deque[str] = deque(maxlen=20)
        self._changed = asyncio.Condition()
        self._ended = False

    async def __aenter__(self) -> Child:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ncfast",
            *self._arguments,
            env={**os.environ, "NC_LOG_FORMAT": "json"},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read_log())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_SEC):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reading

    def count(self, event: str) -> int:
        """How often the child has logged `event`."""
        return len(self._events[event])

    async def event(self, name: str, number: int = 1) -> dict[str, Any]:
        """The fields of the `number`-th log line of that event; waits for it. Raises `ChildEnded`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended or self.count(name) >= number)
        if self.count(name) < number:
            raise self._end()
        return self._events[name][number - 1]

    async def ended(self) -> NoReturn:
        """Waits for the child's end, which comes too early: raises `ChildEnded`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended)
        raise self._end()

    def _end(self) -> ChildEnded:
        last = "".join(f"\n  | {line}" for line in self._last_lines)
        return ChildEnded(f"the {self.name} ended too early; its log closes with{last or ' nothing'}")

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._last_lines.append(line)
            if line.startswith("{"):
                fields = json.loads(line)
                async with self._changed:
                    self._events[fields["event"]].append(fields)
                    self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()
