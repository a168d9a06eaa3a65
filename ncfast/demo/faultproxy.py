"""A TCP proxy that misbehaves on demand: put it between agent and hub (or anywhere) and break the path.

    async with FaultProxy(("127.0.0.1", hub_port)) as proxy:
        agent dials proxy.address ...
        proxy.cut()              # RST to both ends of every connection
        proxy.stall()            # silence: nothing moves, nothing is closed
        proxy.resume()
        proxy.down.drop()        # one way only: what the target says is swallowed
        proxy.up.trickle(1000)   # bytes per second
        proxy.up.slice(7)        # no write longer than 7 bytes
        proxy.up.delay(0.05)     # each byte is so many seconds on its way, at the full rate

`up` is from the dialling side to the target, `down` is the way back. Faults hold for open and future
connections. Dropped bytes are gone: a stream that lost some is of no use, so end a `drop` with a `cut`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque

Address = tuple[str, int]

_CHUNK = 65536
_LONG = 512  # chunks that are on a delayed way at most: 32 MiB
_RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with zero seconds: close sends RST


class Way:
    """One direction through the proxy and the faults it has now."""

    def __init__(self) -> None:
        self.bytes = 0  # taken from the sender so far, dropped ones included
        self._flowing = asyncio.Event()
        self._rate: float | None
        self._piece: int
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

    def delay(self, seconds: float) -> None:
        """Deliver what arrives from now on so much later, the FIN as well."""
        self._delay = seconds

    def resume(self) -> None:
        """End every fault of this direction."""
        self._delay = 0.0
        self._rate = None
        self._piece = _CHUNK
        self._dropping = False
        self._flowing.set()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Move bytes until the sender's FIN, then pass that on."""
        pipe = _Pipe()
        async with asyncio.TaskGroup() as ends:
            ends.create_task(self._take(reader, pipe))
            ends.create_task(self._give(writer, pipe))

    async def _take(self, reader: asyncio.StreamReader, pipe: _Pipe) -> None:
        data = b"first"
        while data:
            data = await reader.read(_CHUNK)
            self.bytes += len(data)
            if not (data and self._dropping):
                pipe.put(data, self._delay)
            while len(pipe.chunks) > (_LONG if self._delay else 0):
                await pipe.turn()

    async def _give(self, writer: asyncio.StreamWriter, pipe: _Pipe) -> None:
        while data := await pipe.due():
            while data:
                await self._flowing.wait()
                piece, data = data[: self._piece], data[self._piece :]
                _there(writer)
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(len(piece) / self._rate if self._rate else 0)
            pipe.taken()
        await self._flowing.wait()
        if not self._dropping:
            _there(writer)
            writer.write_eof()


class _Pipe:
    """Chunks on their way, each with the time of its arrival; an empty one is the FIN."""

    def __init__(self) -> None:
        self.chunks: deque[tuple[float, bytes]] = deque()
        self._now = asyncio.get_running_loop().time
        self._changed = asyncio.Event()

    def put(self, data: bytes, delay: float) -> None:
        self.chunks.append((self._now() + delay, data))
        self._changed.set()

    async def due(self) -> bytes:
        """The first chunk, once it is there; it stays the first until ``taken``."""
        while not self.chunks:
            await self.turn()
        arrival, data = self.chunks[0]
        if (wait := arrival - self._now()) > 0:
            await asyncio.sleep(wait)
        return data

    def taken(self) -> None:
        self.chunks.popleft()
        self._changed.set()

    async def turn(self) -> None:
        """Until a chunk came or went."""
        self._changed.clear()
        await self._changed.wait()


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


def _there(writer: asyncio.StreamWriter) -> None:
    """Raise ConnectionAbortedError for an end that is gone: asyncio says nothing then, uvloop RuntimeError."""
    if writer.is_closing():
        raise ConnectionAbortedError


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    writer.transport.abort()
