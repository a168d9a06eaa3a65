"""Our end of a bare link to another hub: frames, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.client import ClientProtocol
from websockets.frames import Frame as Message
from websockets.frames import Opcode
from websockets.uri import parse_uri

from ncfast._frames import FrameType, encode
from ncfast.conformance.tunnel import Frame, Tunnel

ENDS = 64  # reasons from here on end a link


class Link(Tunnel):
    """`close_code` is the reason of the other hub's last GOAWAY."""

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
