"""Our end of one WebSocket tunnel: the other end's messages as one stream of frames, each judged as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame as Message
from websockets.frames import Opcode
from websockets.protocol import Protocol, State

from ncfast._frames import FrameError, FrameType, decode, encode
from ncfast.conformance.broken import Broken
from ncfast.core.messages import Hello, HelloAck

MAX_MESSAGE = 1 << 20  # bytes: section 13
QUIET = logging.Logger("conformance", logging.CRITICAL)  # the library's own words are of no use here


class Frame(NamedTuple):
    type: int
    code: int
    epoch: int
    cid: bytes
    seq: int
    ack: int
    limit: int
    payload: bytes

    @property
    def name(self) -> str:
        """As the page writes it; unknown types by their number."""
        return FrameType(self.type).name if self.type in FrameType.__members__.values() else f"type {self.type}"


class Tunnel:
    """`judge(tunnel, frame)` sees each frame as it comes, before a script can ask for it, and may raise Broken. Frames
    that it lets through wait in `frames`; what went wrong stays in `broken`."""

    def __init__(
        self,
        ws: Protocol,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        judge: Callable[[Tunnel, Frame], None],
        hub: str = "",
    ) -> None:
        """`hub`: of which the tunnel is, where there are several."""
        self.hub = hub
        self.hello: Hello | None = None  # the agent's last one, and the hub's answer to it
        self.granted: HelloAck | None = None
        self.epoch = 0
        self.owns = False
        self.left = False  # for another of the same hub, which gets its flows one by one
        self.ended = False
        self.close_code: int | None = None  # of the other end's close frame
        self.frames: list[Frame] = []
        self.broken: Broken | None = None
        self.changed = asyncio.Event()
        self.pings = 0  # the `seq` of our last PING
        self.ponged = 0  # the highest `seq` that a PONG has brought back
        self.pinged = -1  # the `seq` of the other end's last PING
        self.deaf = False  # PINGs of the other end get no answer
        self.most = MAX_MESSAGE  # bytes of a message of the other end's
        self._reader = reader
        self._writer = writer
        self._judge = judge
        self._ws = ws
        self._stream = bytearray()
        self._size = 0  # of the message that comes
        self._answered = False  # the ping of WebSocket's own
        self._gathered: bytearray | None = None  # what waits to be sent in pieces

    # in

    async def run(self) -> None:
        """Reads until the tunnel ends."""
        try:
            while not self.ended:
                self._take()
                if not self.ended:
                    await self._read()
        except Broken as exc:
            self.broken = exc
        except ConnectionError:
            pass
        finally:
            self.ended = True
            self._writer.close()
            self.changed.set()

    async def _read(self) -> None:
        data = await self._reader.read(65536)
        if not data:
            raise ConnectionResetError
        self._ws.receive_data(data)

    def _take(self) -> None:
        for one in self._ws.events_received():
            if isinstance(one, Message):
                self._message(one)
        self._flush()  # pongs, and the answer to a close
        if self._ws.parser_exc is not None and self._ws.close_rcvd is None:
            too_big = isinstance(self._ws.parser_exc, PayloadTooBig)
            raise Broken("1.10" if too_big else "1.12", f"a WebSocket frame is refused: {self._ws.parser_exc}")
        if self._ws.close_rcvd is not None:
            self.ended = True
            self.close_code = self._ws.close_rcvd.code
        self.changed.set()

    def _message(self, message: Message) -> None:
        if message.opcode is Opcode.TEXT:
            raise Broken("1.9", "a text message")
        if message.opcode is Opcode.PONG and message.data == b"conformance":
            self._answered = True
        if message.opcode not in (Opcode.BINARY, Opcode.CONT):
            return
        self._size = len(message.data) + (self._size if message.opcode is Opcode.CONT else 0)
        if self._size > self.most:
            raise Broken("1.10", f"a message has {self._size} bytes or more, and {self.most} are taken")
        self._stream += message.data
        while True:
            try:
                found = decode(self._stream)
            except FrameError as exc:
                raise Broken("3", f"a malformed frame: {exc}") from None
            if found is None:
                return
            type, _, code, epoch, cid, seq, ack, limit, payload, end = found
            del self._stream[:end]
            frame = Frame(type, code, epoch, cid, seq, ack, limit, payload)
            self._judge(self, frame)
            self.frames.append(frame)

    # out

    def send(self, data: bytes) -> None:
        """A binary message. What the other end has closed already takes nothing."""
        if self._gathered is not None:
            self._gathered += data
        elif self._ws.state is State.OPEN and not self.ended:
            self._ws.send_binary(data)
            self._flush()

    def gather(self) -> None:
        """What is sent waits, until `pass_on`."""
        self._gathered = bytearray()

    def pass_on(self, size: int, *, fragments: bool) -> None:
        """All that was gathered goes, cut into pieces of `size` bytes."""
        data, self._gathered = bytes(self._gathered or b""), None
        self.send_in([data[at : at + size] for at in range(0, len(data), size)], fragments)

    def send_in(self, parts: list[bytes], fragments: bool) -> None:
        """Messages, or fragments of one."""
        if self._ws.state is not State.OPEN or self.ended:
            return
        for number, part in enumerate(parts, 1):
            if not fragments:
                self._ws.send_binary(part)
            elif number == 1:
                self._ws.send_binary(part, fin=number == len(parts))
            else:
                self._ws.send_continuation(part, fin=number == len(parts))
        self._flush()

    def text(self, words: str) -> None:
        """A text message."""
        self._ws.send_text(words.encode())
        self._flush()

    def close(self, code: int) -> None:
        """A close frame of ours."""
        self._ws.send_close(code)
        self._flush()

    def wire(self, data: bytes) -> None:
        """Bytes below WebSocket, as they are."""
        self._writer.write(data)

    async def ping(self) -> None:
        """A ping of WebSocket's own, and the wait for its answer."""
        self._ws.send_ping(b"conformance")
        self._flush()
        while not self._answered:
            self.changed.clear()
            await self.changed.wait()

    def frame(self, type: int, **fields: int | bytes) -> None:
        """One frame in a message of its own."""
        self.send(encode(type, **fields))  # type: ignore[arg-type]

    def cut(self) -> None:
        """The TCP connection ends without a word."""
        self.ended = True
        self._writer.transport.abort()

    def _flush(self) -> None:
        for data in self._ws.data_to_send():
            if data and not self._writer.is_closing():
                self._writer.write(data)
