"""What is beyond the program under test: one TCP connection at its far side, of the service's or of a client's, which
says, hears, ends and resets as the script wants."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct

from ncfast.conformance.broken import Broken

CHUNK = 65536
_LONGEST = 1 << 21  # bytes of a stream


class Stream:
    """Bytes in which no part repeats, so that a lost, doubled or misplaced piece always shows."""

    def __init__(self, name: str) -> None:
        self._bytes = hashlib.shake_128(name.encode()).digest(_LONGEST)

    def part(self, start: int, end: int) -> bytes:
        """Those with the numbers start … end - 1."""
        return self._bytes[start:end]


class FarSide:
    """One connection. It says `own`, and is to hear `ours`, what the tunnel's scripted end sends. Bytes are counted
    from 0 in each direction; `who` is a word for reports."""

    def __init__(
        self, who: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ours: Stream, own: Stream
    ) -> None:
        self._who = who
        self._reader = reader
        self._writer = writer
        self._ours = ours
        self._own = own
        self.heard = 0
        self.said = 0
        self.ended = False  # its own direction

    async def say(self, count: int) -> None:
        """So many bytes of its stream go into the connection."""
        self._writer.write(self._own.part(self.said, self.said + count))
        self.said += count
        await self._writer.drain()

    def end(self) -> None:
        """Its direction ends in order."""
        self.ended = True
        self._writer.write_eof()

    def reset(self) -> None:
        """The connection is reset: RST instead of FIN."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def hear(self, count: int, rule: str) -> None:
        """Waits until the first `count` bytes of our stream have come. Raises Broken for any others."""
        while self.heard < count:
            try:
                data = await self._reader.read(min(CHUNK, count - self.heard))
            except ConnectionResetError:
                raise Broken(rule, f"the {self._who}'s connection was reset after {self.heard} bytes") from None
            if not data:
                raise Broken(rule, f"the {self._who}'s connection has ended after {self.heard} bytes of {count}")
            if data != self._ours.part(self.heard, self.heard + len(data)):
                raise Broken(rule, f"the {self._who} was given other bytes than were sent, from byte {self.heard} on")
            self.heard += len(data)

    async def hear_end(self, rule: str) -> None:
        """Waits for the end of our stream, in order. Raises Broken."""
        try:
            data = await self._reader.read(1)
        except ConnectionResetError:
            raise Broken(rule, f"the {self._who}'s connection was reset, and not ended in order") from None
        if data:
            raise Broken(rule, f"the {self._who} was given more than the {self.heard} bytes that there are")

    async def hear_reset(self, rule: str) -> None:
        """Waits for a reset. Raises Broken for an end in order."""
        try:
            while await self._reader.read(CHUNK):
                pass
        except ConnectionResetError:
            return
        raise Broken(rule, f"the {self._who}'s connection has ended in order, and was not reset")

    def close(self) -> None:
        self._writer.close()
