"""Our end of a link to another hub, by either carrier: frames on a bare stream, or in WebSocket messages by /mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.client import ClientProtocol
from websockets.frames import Frame as Message
from websockets.frames import Opcode
from websockets.uri import parse_uri

from ncfast._frames import FrameType, encode
from ncfast.conformance.broken import Broken
from ncfast.conformance.hubs.dialled import Dialled
from ncfast.conformance.tunnel import Frame, Tunnel
from ncfast.core.errors import reason_of_close

LINE = "GET /mesh HTTP/1.1"
ENDS = 64  # reasons from here on end a link


class Link(Tunnel):
    """`close_code` is the reason why the other hub has ended it, not WebSocket's code."""


class BareLink(Link):
    """Frames, and nothing else; the last GOAWAY has the reason."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        judge: Callable[[Tunnel, Frame], None],
    ) -> None:
        super().__init__(ClientProtocol(parse_uri("ws://mesh/")), reader, writer, judge)  # which is never opened

    def _take(self) -> None:
        self.changed.set()

    async def _read(self) -> None:
        data = await self._reader.read(65536)
        if not data:
            raise ConnectionResetError
        self._message(Message(Opcode.BINARY, data))
        last = self.frames[-1] if self.frames else None
        if last is not None and last.type == FrameType.GOAWAY and last.code >= ENDS:
            self.close_code = last.code

    def send(self, data: bytes) -> None:
        if not self.ended and not self._writer.is_closing():
            self._writer.write(data)

    def close(self, code: int) -> None:
        """The last GOAWAY, and the stream's end."""
        self.send(encode(FrameType.GOAWAY, code=code))
        self._writer.close()


class WebLink(Dialled, Link):
    """WebSocket's close code has the reason."""

    async def open(self) -> None:
        """The handshake. Raises Broken, and ConnectionError."""
        answer = await self.ask(LINE, {}, b"\r\n")
        if answer.status_code != 101:
            raise Broken("11.1", f"GET /mesh is answered by {answer.status_code}")

    def _take(self) -> None:
        super()._take()
        if self.close_code is not None:
            self.close_code = reason_of_close(self.close_code)
