"""The hub's end of one WebSocket tunnel: the agent's handshake judged, its messages as one stream of frames."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame as Message
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from ncfast._frames import FrameError, FrameType, decode, encode
from ncfast.conformance.broken import Broken

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
        hub: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        judge: Callable[[Tunnel, Frame], None],
    ) -> None:
        self.hub = hub
        self.epoch = 0
        self.owns = False
        self.ended = False
        self.close_code: int | None = None  # of the agent's close frame
        self.frames: list[Frame] = []
        self.broken: Broken | None = None
        self.changed = asyncio.Event()
        self.pings = 0  # the `seq` of our last PING
        self.ponged = 0  # the highest `seq` that a PONG has brought back
        self._reader = reader
        self._writer = writer
        self._judge = judge
        self._ws = ServerProtocol(max_size=MAX_MESSAGE, logger=QUIET)
        self._stream = bytearray()
        self._answered = False  # the ping of WebSocket's own

    # the handshake

    async def handshake(self, token: str) -> Request:
        """The agent's request; nothing is answered yet. Raises Broken, and ConnectionError if it goes away."""
        request: Request | None = None
        while request is None:
            await self._read()
            request = next((one for one in self._ws.events_received() if isinstance(one, Request)), None)
        headers = request.headers
        if request.path != "/tunnel":
            raise Broken("1.3", f"the request is for {request.path!r}")
        if headers.get_all("Authorization") != [f"Bearer {token}"]:
            raise Broken("1.1", "there is not exactly one Authorization header with the token of the file")
        for name in ("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"):
            if name in headers:
                raise Broken("1.2", f"the request has {name}")
        for name in ("Origin", "Content-Length", "Transfer-Encoding"):
            if name in headers:
                raise Broken("1.3", f"the request has {name}")
        return request

    def accept(self, request: Request) -> None:
        """Answers 101. Raises Broken."""
        response = self._ws.accept(request)
        self._ws.send_response(response)
        self._flush()
        if response.status_code != 101:
            raise Broken("1", f"no WebSocket handshake: {response.body.decode(errors='replace').strip()}")

    def refuse(self, status: int, headers: dict[str, str]) -> None:
        """Answers with another status, and closes."""
        response = self._ws.reject(status, "not now\n")
        for name, value in headers.items():
            response.headers[name] = value
        self._ws.send_response(response)
        self._flush()
        self._writer.close()

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
        if self._ws.state is not State.OPEN:
            self.ended = True
            self.close_code = self._ws.close_rcvd.code if self._ws.close_rcvd is not None else None
        self.changed.set()

    def _message(self, message: Message) -> None:
        if message.opcode is Opcode.TEXT:
            raise Broken("1.9", "a text message")
        if message.opcode is Opcode.PONG and message.data == b"conformance":
            self._answered = True
        if message.opcode not in (Opcode.BINARY, Opcode.CONT):
            return
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
        """A binary message. What the agent has closed already takes nothing."""
        if self._ws.state is State.OPEN and not self.ended:
            self._ws.send_binary(data)
            self._flush()

    def send_in(self, parts: list[bytes], fragments: bool) -> None:
        """Messages, or fragments of one."""
        for number, part in enumerate(parts, 1):
            if not fragments:
                self._ws.send_binary(part)
            elif number == 1:
                self._ws.send_binary(part, fin=number == len(parts))
            else:
                self._ws.send_continuation(part, fin=number == len(parts))
        self._flush()

    async def ping(self) -> None:
        """A ping of WebSocket's own, and the wait for its answer."""
        self._ws.send_ping(b"conformance")
        self._flush()
        while not self._answered:
            self.changed.clear()
            await self.changed.wait()

    def frame(self, type: FrameType, **fields: int | bytes) -> None:
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
