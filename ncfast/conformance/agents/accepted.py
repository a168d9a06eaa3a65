"""The hub's end of a tunnel: the agent's opening handshake, judged and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.http11 import Request
from websockets.server import ServerProtocol

from ncfast.conformance.broken import Broken
from ncfast.conformance.tunnel import MAX_MESSAGE, QUIET, Frame, Tunnel

MOST_BYTES, MOST_HEADERS = 8192, 64  # of a request that every hub takes


class Accepted(Tunnel):
    """`hub`: at whose door it was."""

    def __init__(
        self,
        hub: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        judge: Callable[[Tunnel, Frame], None],
    ) -> None:
        self._server = ServerProtocol(max_size=MAX_MESSAGE, logger=QUIET)
        super().__init__(self._server, reader, writer, judge, hub)

    async def handshake(self, token: str, elsewhere: str) -> Request:
        """The agent's request; nothing is answered yet. `elsewhere`: the path that a redirect has named. Raises Broken,
        and ConnectionError if it goes away."""
        request: Request | None = None
        while request is None:
            await self._read()
            request = next((one for one in self._ws.events_received() if isinstance(one, Request)), None)
        headers = request.headers
        if request.path != "/tunnel":
            raise Broken("1.17" if request.path == elsewhere else "1.3", f"the request is for {request.path!r}")
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
        if self._server.reader.buffer:
            raise Broken("1.4", "something comes behind the request, which is not answered yet")
        if len(request.serialize()) > MOST_BYTES or len(list(request.headers.raw_items())) > MOST_HEADERS:
            raise Broken("1.5", f"the request has more than {MOST_BYTES} bytes or {MOST_HEADERS} headers")
        response = self._server.accept(request)
        self._server.send_response(response)
        self._flush()
        if response.status_code != 101:
            raise Broken("1", f"no WebSocket handshake: {response.body.decode(errors='replace').strip()}")

    def refuse(self, status: int, headers: dict[str, str]) -> None:
        """Answers with another status, and closes."""
        response = self._server.reject(status, "not now\n")
        for name, value in headers.items():
            response.headers[name] = value
        self._server.send_response(response)
        self._flush()
        self._writer.close()
