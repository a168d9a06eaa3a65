"""The service beside the agent: it answers, waits and resets as the script says."""

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


class Target:
    """One connection of the agent's to the service. Bytes are counted from 0 in each direction."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: Stream, own: Stream) -> None:
        self._reader = reader
        self._writer = writer
        self._client = client
        self._own = own
        self.heard = 0
        self.said = 0
        self.ended = False  # the service's direction

    async def say(self, count: int) -> None:
        """So many bytes of the service's stream go to the agent."""
        self._writer.write(self._own.part(self.said, self.said + count))
        self.said += count
        await self._writer.drain()

    def end(self) -> None:
        """The service's direction ends in order."""
        self.ended = True
        self._writer.write_eof()

    def reset(self) -> None:
        """The connection is reset: RST instead of FIN."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def hear(self, count: int, rule: str) -> None:
        """Waits until the first `count` bytes of the client's stream have come. Raises Broken for any others."""
        while self.heard < count:
            try:
                data = await self._reader.read(min(CHUNK, count - self.heard))
            except ConnectionResetError:
                raise Broken(rule, f"the service's connection was reset after {self.heard} bytes") from None
            if not data:
                raise Broken(rule, f"the service's connection has ended after {self.heard} bytes of {count}")
            if data != self._client.part(self.heard, self.heard + len(data)):
                raise Broken(rule, f"the service was given other bytes than were sent, from byte {self.heard} on")
            self.heard += len(data)

    async def hear_end(self, rule: str) -> None:
        """Waits for the end of the client's stream, in order. Raises Broken."""
        try:
            data = await self._reader.read(1)
        except ConnectionResetError:
            raise Broken(rule, "the service's connection was reset, and not ended in order") from None
        if data:
            raise Broken(rule, f"the service was given more than the {self.heard} bytes that there are")

    async def hear_reset(self, rule: str) -> None:
        """Waits for a reset. Raises Broken for an end in order."""
        try:
            while await self._reader.read(CHUNK):
                pass
        except ConnectionResetError:
            return
        raise Broken(rule, "the service's connection has ended in order, and was not reset")

    def close(self) -> None:
        self._writer.close()


class Service:
    """Listens on a loopback port of the kernel's choice. Connections wait in the kernel until the script takes them."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(16)
        self.address: tuple[str, int] = self._socket.getsockname()
        self._filler: socket.socket | None = None
        self._targets: list[Target] = []

    def hold(self) -> None:
        """The agent's connects stay unanswered: the queue of one place is taken, and Linux drops further SYNs."""
        self._socket.listen(0)
        self._filler = socket.socket()
        self._filler.connect(self.address)

    async def release(self) -> None:
        """They are answered, at the next SYN that is sent again."""
        self._socket.listen(16)
        taken, _ = await asyncio.get_running_loop().sock_accept(self._socket)
        taken.close()
        if self._filler is not None:
            self._filler.close()

    def refuse(self) -> None:
        """The agent's connects are refused from now on."""
        self._socket.close()

    async def accept(self, client: Stream, own: Stream) -> Target:
        """The agent's next connection."""
        taken, _ = await asyncio.get_running_loop().sock_accept(self._socket)
        target = Target(*await asyncio.open_connection(sock=taken), client, own)
        self._targets.append(target)
        return target

    def close(self) -> None:
        """Ends everything."""
        for target in self._targets:
            target.close()
        if self._filler is not None:
            self._filler.close()
        self._socket.close()
