"""The private service of the demo: takes or gives a stream with its SHA-256, and echoes everything else.

The first line decides. `UP <bytes>`: that many bytes follow, the answer is their digest.
`DOWN <bytes> <seed>`: the answer is so many bytes of that seed's stream, then their digest.
Any other line: an echo, for `nc`.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterator

CHUNK = 65536


def stream(seed: int, size: int) -> Iterator[bytes]:
    """`size` bytes in which no part repeats, so that a lost, doubled or misplaced piece always shows."""
    source = random.Random(seed)
    for start in range(0, size, CHUNK):
        yield source.randbytes(min(CHUNK, size - start))


class Service:
    """Listens on a loopback port of the kernel's choice; use it as a context manager."""

    def __init__(self) -> None:
        self.address = ("127.0.0.1", 0)
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Service:
        self._server = await asyncio.start_server(self._session, *self.address)
        self.address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        try:
            match (await reader.readline()).split():
                case [b"UP", size]:
                    await _take(reader, writer, int(size))
                case [b"DOWN", size, seed]:
                    await _give(writer, int(size), int(seed))
                case words:
                    writer.write(b" ".join(words) + b"\n")
                    await _echo(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the demo ends: either way this session is over
        finally:
            self._sessions.remove(task)
            writer.close()


async def _take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    digest = hashlib.sha256()
    while size and (data := await reader.read(min(size, CHUNK))):
        digest.update(data)
        size -= len(data)
    writer.write(digest.hexdigest().encode() + b"\n")
    await writer.drain()


async def _give(writer: asyncio.StreamWriter, size: int, seed: int) -> None:
    digest = hashlib.sha256()
    for chunk in stream(seed, size):
        digest.update(chunk)
        writer.write(chunk)
        await writer.drain()
    writer.write(digest.hexdigest().encode() + b"\n")
    await writer.drain()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
