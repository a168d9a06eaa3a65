"""What systemd is told of the process by sd_notify(3): that it serves, reloads, ends, and that its loop runs.

Written here, as it is one datagram of lines: systemd's own binding is built against its library, and those in Python
alone have had no release for years.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from ncfast.net.seam import Net
from ncfast.observe import log

PATIENCE_SEC = 0.1  # for a supervisor that does not read; flows wait as long

_log = log.get("serve")


class Supervisor:
    """The one that `$NOTIFY_SOCKET` leads to; without it nobody is told anything.

    Where the unit has WatchdogSec= it is told twice in that time that the loop runs, from `ready` on.
    """

    def __init__(self, net: Net, *, silent: bool = False, environment: Mapping[str, str] = os.environ) -> None:
        """Until it is `ready`, a `silent` one says nothing: it is another process that the supervisor listens to."""
        self._net = net
        self._silent = silent
        self._address = environment.get("NOTIFY_SOCKET", "")
        ours = silent or environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._alive_sec = int(environment.get("WATCHDOG_USEC", "0")) / 2e6 if ours else 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._reload = asyncio.Lock()
        self._ends = False

    def ready(self) -> None:
        """Once, when it serves."""
        self._silent = False
        self._tell("READY=1")
        if self._address and self._alive_sec:
            self._timer = self._net.loop.call_later(self._alive_sec, self._alive)

    @asynccontextmanager
    async def reloading(self) -> AsyncIterator[None]:
        """While it reads its files again, one reload after the other; whether it takes them is in the log. One that
        meets the end is not told as over: the end is the last word."""
        async with self._reload:
            self._tell_of_reload("RELOADING=1", f"MONOTONIC_USEC={int(self._net.clock() * 1e6)}")
            try:
                yield
            finally:
                self._tell_of_reload("READY=1")

    def stopping(self) -> None:
        """When it begins to end, however long that takes; the supervisor's deadline for it runs from here."""
        self._tell("STOPPING=1")
        self._ends = True

    def passes_to(self, pid: int) -> None:
        """That process is the service from now on, and tells the rest: this one says nothing more."""
        self._tell(f"MAINPID={pid}")
        self._silent = True
        self.close()

    def close(self) -> None:
        """Before the loop ends."""
        if self._timer is not None:
            self._timer.cancel()

    def _alive(self) -> None:
        self._tell("WATCHDOG=1")
        self._timer = self._net.loop.call_later(self._alive_sec, self._alive)

    def _tell_of_reload(self, *lines: str) -> None:
        if not self._ends:
            self._tell(*lines)

    def _tell(self, *lines: str) -> None:
        if not self._address or self._silent:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(PATIENCE_SEC)
                sock.sendto("\n".join(lines).encode(), address)
        except OSError as exc:
            _log.warning("notify_failed", detail=lines[0], error=exc.strerror or "no answer")
