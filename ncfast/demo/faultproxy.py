"""A TCP proxy that misbehaves on demand: put it between agent and hub (or anywhere) and break the path.

    async with FaultProxy(("127.0.0.1", hub_port)) as proxy:
        agent dials proxy.address ...
        proxy.cut()              # RST to both ends of every connection
        proxy.stall()            # silence: nothing moves, nothing is closed
        proxy.resume()
        proxy.down.drop()        # one way only: what the target says is swallowed
        proxy.up.trickle(1000)   # bytes per second
        proxy.up.slice(7)        # no write longer than 7 bytes

`up` is from the dialling side to the target, `down` is the way back. Faults hold for open and future
connections. Dropped bytes are gone: a stream that lost some is of no use, so end a `drop` with a `cut`.
"""

from __future__ import annotations

import asyncio
import socket
import struct

Address = tuple[str, int]

_CHUNK = 65536
_RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with zero seconds: close sends RST


class Way:
    """One direction through the proxy and the faults it has now."""

    def __init__(self) -> None:
        self.bytes = 0  # taken from the sender so far, dropped ones included
        self._flowing = asyncio.Event()
        self.resume()

    def stall(self) -> None:
        """Forward nothing until `resume`; what arrives meanwhile waits, in the end at its sender."""
        self._flowing.clear()

    def drop(self) -> None:
        """Swallow what arrives from now on."""
        self._dropping = True

    def trickle(self, bytes_per_sec: float) -> None:
        """Forward no faster than this, in pieces of a twentieth of a second."""
        self._rate = bytes_per_sec
        self._piece = min(self._piece, max(1, int(bytes_per_sec / 20)))

    def slice(self, size: int) -> None:
        """Forward in writes of at most `size` bytes, each with a turn of the event loop of its own."""
        self._piece = size

    def resume(self) -> None:
        """End every fault of this direction."""
        self._rate: float | None = None
        self._piece = _CHUNK
        self._dropping = False
        self._flowing.set()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Move bytes until the sender's FIN, then pass that on."""
        while data := await reader.read(_CHUNK):
            self.bytes += len(data)
            while data:
                await self._flowing.wait()
                if self._dropping:
                    break
                piece, data = data[: self._piece], data[self._piece :]
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(len(piece) / self._rate if self._rate else 0)
        await self._flowing.wait()
        if not self._dropping:
            writer.write_eof()


class FaultProxy:
    """Listens on `bind` (port 0: any), forwards each connection to `target`; use it as a context manager."""

    def __init__(self, target: Address, bind: Address = ("127.0.0.1", 0)) -> None:
        self.target = target
        self.address = bind
        self.accepted = 0
        self.up = Way()
        self.down = Way()
        self._refusing = False
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_server(self._serve, *self.address)
        self.address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._connections)
        self.cut()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    def cut(self) -> int:
        """Reset both ends of every open connection; returns how many there were."""
        for task, writers in self._connections.items():
            for writer in writers:
                _reset(writer)
            task.cancel()
        return len(self._connections)

    def refuse(self, refusing: bool = True) -> None:
        """Reset connections as soon as they are accepted, until `refuse(False)` or `resume`."""
        self._refusing = refusing

    def stall(self) -> None:
        """Silence in both directions, without closing anything."""
        self.up.stall()
        self.down.stall()

    def resume(self) -> None:
        """End every fault."""
        self._refusing = False
        self.up.resume()
        self.down.resume()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refusing:
            return _reset(writer)
        task = asyncio.current_task()
        assert task is not None
        writers = self._connections[task] = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self.up.pump(reader, far_writer))
                ways.create_task(self.down.pump(far_reader, writer))
            for each in writers:
                each.close()
        except* (OSError, asyncio.CancelledError):
            for each in writers:  # one end failed or we cut: the other end shall see a failure, too
                _reset(each)
        finally:
            del self._connections[task]


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    writer.transport.abort()
