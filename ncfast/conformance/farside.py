"""What is beyond the program under test: one TCP connection at its far side, of the service's or of a client's, which
says, hears, ends and resets as the script wants."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from typing import Any, Self

from ncfast.conformance.broken import Broken

AHEAD = 131072  # bytes that are read before the script asks for them; more wait in the kernel
SLOW = 16384  # bytes that the kernel holds for a slow one, which reads when it is asked to
_LONGEST = 1 << 21  # bytes of a stream


class Stream:
    """Bytes in which no part repeats, so that a lost, doubled or misplaced piece always shows."""

    def __init__(self, name: str) -> None:
        self._bytes = hashlib.shake_128(name.encode()).digest(_LONGEST)

    def part(self, start: int, end: int) -> bytes:
        """Those with the numbers start … end - 1."""
        return self._bytes[start:end]


class FarSide(asyncio.Protocol):
    """One connection. It says `own`, and is to hear `ours`, what the tunnel's scripted end sends. Bytes are counted
    from 0 in each direction; `who` is a word for reports. What came before a reset is heard before it."""

    def __init__(self, who: str, ours: Stream, own: Stream, ahead: int = AHEAD) -> None:
        self._who = who
        self._ahead = ahead
        self._ours = ours
        self._own = own
        self._transport: Any = None
        self._waiting = bytearray()  # came, and is not heard yet
        self._over = False
        self._reset = False
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.heard = 0
        self.said = 0
        self.ended = False  # its own direction

    @classmethod
    async def on(cls, sock: socket.socket, *said: Any) -> Self:
        """That of a socket which is connected, and what else `__init__` takes."""
        _, far = await asyncio.get_running_loop().create_connection(lambda: cls(*said), sock=sock)
        return far

    # asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) > self._ahead:
            self._transport.pause_reading()
        self._changed.set()

    def eof_received(self) -> bool:
        self._over = True
        self._changed.set()
        return True  # our direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._reset = exc is not None
        self._writable.set()
        self._changed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # the script

    async def say(self, count: int) -> None:
        """So many bytes of its stream go into the connection."""
        self._transport.write(self._own.part(self.said, self.said + count))
        self.said += count
        await self._writable.wait()

    def end(self) -> None:
        """Its direction ends in order."""
        self.ended = True
        self._transport.write_eof()

    def reset(self) -> None:
        """The connection is reset: RST instead of FIN."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def hear(self, count: int, rule: str) -> None:
        """Waits until the first `count` bytes of our stream have come. Raises Broken for any others."""
        while self.heard < count:
            data = await self._some(count - self.heard)
            if not data:
                how = "was reset" if self._reset else "has ended"
                raise Broken(rule, f"the {self._who}'s connection {how} after {self.heard} bytes of {count}")
            if data != self._ours.part(self.heard, self.heard + len(data)):
                raise Broken(rule, f"the {self._who} was given other bytes than were sent, from byte {self.heard} on")
            self.heard += len(data)

    async def hear_end(self, rule: str) -> None:
        """Waits for the end of our stream, in order. Raises Broken."""
        if await self._some(1):
            raise Broken(rule, f"the {self._who} was given more than the {self.heard} bytes that there are")
        if self._reset:
            raise Broken(rule, f"the {self._who}'s connection was reset, and not ended in order")

    async def hear_reset(self, rule: str) -> None:
        """Waits for a reset, whatever comes before it. Raises Broken for an end in order."""
        while await self._some(AHEAD):
            pass
        if not self._reset:
            raise Broken(rule, f"the {self._who}'s connection has ended in order, and was not reset")

    async def _some(self, most: int) -> bytes:
        """The next bytes, as soon as there are any; none at the end."""
        while not self._waiting and not self._over:
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._waiting[:most])
        del self._waiting[:most]
        if not self._over and len(self._waiting) <= self._ahead:
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        self._transport.close()
