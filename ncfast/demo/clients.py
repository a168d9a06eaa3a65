"""The clients of the demo: two long transfers and many small conversations, each checking every byte."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

from ncfast.demo.service import CHUNK, stream

Address = tuple[str, int]

_PAUSE_SEC = 0.05  # between two lines of a conversation: some 20 a second, as a person's session would never reach


@dataclass
class Transfer:
    """One stream through the tunnel. `moved` counts what has left the client (up) or reached it (down)."""

    direction: str
    size: int
    seed: int
    moved: int = 0
    sent_digest: str = ""
    received_digest: str = ""

    @property
    def intact(self) -> bool:
        return bool(self.sent_digest) and self.sent_digest == self.received_digest

    async def run(self, address: Address) -> None:
        """Move the bytes; the sending and the receiving end each take a digest of what they saw."""
        reader, writer = await asyncio.open_connection(*address)
        try:
            await (self._up if self.direction == "up" else self._down)(reader, writer)
        finally:
            writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"UP %d\n" % self.size)
        digest = hashlib.sha256()
        for chunk in stream(self.seed, self.size):
            digest.update(chunk)
            writer.write(chunk)
            await writer.drain()
            self.moved += len(chunk)
        self.sent_digest = digest.hexdigest()
        self.received_digest = (await reader.readline()).decode().strip()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"DOWN %d %d\n" % (self.size, self.seed))
        digest = hashlib.sha256()
        while self.moved < self.size and (data := await reader.read(min(CHUNK, self.size - self.moved))):
            digest.update(data)
            self.moved += len(data)
        self.received_digest = digest.hexdigest()
        self.sent_digest = (await reader.readline()).decode().strip()


@dataclass
class Conversations:
    """Small flows that say a numbered line and wait for its echo, again and again."""

    count: int
    round_trips: int = 0
    faults: list[str] = field(default_factory=list)

    async def run(self, address: Address, stop: asyncio.Event) -> None:
        """Talk on `count` flows until `stop`; what goes wrong stands in `faults`."""
        async with asyncio.TaskGroup() as flows:
            for number in range(self.count):
                flows.create_task(self._talk(number, address, stop))

    async def _talk(self, number: int, address: Address, stop: asyncio.Event) -> None:
        try:
            reader, writer = await asyncio.open_connection(*address)
            turn = 0
            while not stop.is_set():
                line = b"flow %d line %d\n" % (number, turn)
                writer.write(line)
                heard = await reader.readline()
                if heard != line:
                    raise ConnectionError(f"line {turn} came back as {heard[:40]!r}")
                turn += 1
                self.round_trips += 1
                await asyncio.sleep(_PAUSE_SEC)
            writer.close()
        except OSError as error:
            self.faults.append(f"small flow {number}: {error}")
