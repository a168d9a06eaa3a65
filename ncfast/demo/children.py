"""Child processes of the demo: real commands, observed through what they write, always reaped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ncfast.core.errors import NcfastError

NCFAST = (sys.executable, "-m", "ncfast")
_STOP_SEC = 5  # from SIGTERM to SIGKILL; the demo's configuration drains within one second


class ChildEnded(NcfastError):
    """A child ended although it was still needed; the text closes with its last log lines."""


class Child:
    """One process, by default `python -m ncfast …`; use it as a context manager."""

    def __init__(self, *arguments: str, program: Sequence[str] = NCFAST, name: str = "") -> None:
        self.name = name or arguments[0]
        self._command = (*program, *arguments)
        self._events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._last_lines: deque[str] = deque(maxlen=20)
        self._changed = asyncio.Condition()
        self._ended = False

    async def __aenter__(self) -> Child:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env={**os.environ, "NC_LOG_FORMAT": "json"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reading = asyncio.create_task(self._read_log())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.signal(signal.SIGCONT)  # a frozen one does not hear the next
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SEC):
                await self._process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._process.wait()
        await self._reading

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: int) -> None:
        """Sends it, unless the child has ended."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def exit_code(self) -> int:
        """Waits for the child's end, when that is what it shall do; negative for a signal."""
        return await self._process.wait()

    def count(self, event: str) -> int:
        """How often the child has logged `event`."""
        return len(self._events[event])

    async def event(self, name: str, number: int = 1) -> dict[str, Any]:
        """The fields of the `number`-th log line of that event; waits for it. Raises `ChildEnded`."""
        await self._until(lambda: self.count(name) >= number)
        return self._events[name][number - 1]

    async def line(self, text: str) -> None:
        """Waits until one of the last lines has `text` in it. Raises `ChildEnded`."""
        await self._until(lambda: any(text in line for line in self._last_lines))

    async def ended(self) -> NoReturn:
        """Waits for the child's end, which comes too early: raises `ChildEnded`."""
        await self._until(lambda: False)
        raise AssertionError

    async def _until(self, there: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended or there())
        if not there():
            last = "".join(f"\n  | {line}" for line in self._last_lines)
            raise ChildEnded(f"the {self.name} ended too early; its log closes with{last or ' nothing'}")

    async def _read_log(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            async with self._changed:
                self._last_lines.append(line)
                if line.startswith("{"):
                    fields = json.loads(line)
                    self._events[fields["event"]].append(fields)
                self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()
