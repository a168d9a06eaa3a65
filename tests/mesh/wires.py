"""A wire to a hub's mesh listener that can be cut, silenced in one direction, and written into."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

LINGER_0 = struct.pack("ii", 1, 0)


class _Half(asyncio.Protocol):
    """One side of a connection."""

    def __init__(self, wire: Wire, direction: str) -> None:
        self.wire = wire
        self.direction = direction  # that what comes in here goes
        self.other: _Half | None = None
        self.transport: Any = None
        self.silent = False
        self.early = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.silent:
            return
        if self.other is None or self.other.transport is None:
            self.early += data
        else:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        if not self.silent and self.other is not None and self.other.transport is not None:
            self.other.transport.close()
        return self.silent

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.silent and self.other is not None and self.other.transport is not None:
            self.other.transport.abort()


class Wire:
    """`url` leads to the port that `upstream` names at the time of each connection."""

    def __init__(self, upstream: Callable[[], int], scheme: str = "tcp") -> None:
        self._upstream = upstream
        self._scheme = scheme
        self._server: Any = None
        self._halves: list[_Half] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Wire:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{self._scheme}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.silence("both")
        for half in self._halves:
            if half.transport is not None:
                half.transport.abort()

    def _accepted(self) -> _Half:
        up = _Half(self, "up")
        self._halves.append(up)
        task = asyncio.get_running_loop().create_task(self._connect(up))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return up

    async def _connect(self, up: _Half) -> None:
        down = _Half(self, "down")
        try:
            await asyncio.get_running_loop().create_connection(lambda: down, "127.0.0.1", self._upstream())
        except OSError:
            up.transport.abort()
            return
        self._halves.append(down)
        up.other, down.other = down, up
        down.transport.write(up.early)

    def silence(self, direction: str) -> None:
        """What goes this way over present connections ("up": from the dialler) is lost, their ends too."""
        for half in self._halves:
            half.silent = half.silent or direction in ("both", half.direction)

    def reset(self) -> None:
        """Present connections are reset at both sides."""
        halves, self._halves = self._halves, []
        for half in halves:
            half.silent = True
            if half.transport is not None:
                half.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
                half.transport.abort()

    def inject(self, data: bytes) -> None:
        """Writes into the latest connection, towards the hub that was dialled."""
        [half for half in self._halves if half.direction == "down"][-1].transport.write(data)
