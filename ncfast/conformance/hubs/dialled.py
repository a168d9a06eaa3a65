"""The agent's end of a tunnel: an opening handshake as the script wants it, and what is answered to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from ncfast.conformance.broken import Broken
from ncfast.conformance.tunnel import MAX_MESSAGE, QUIET, Frame, Tunnel

LINE = "GET /tunnel HTTP/1.1"
Headers = dict[str, str | list[str] | None]


class Dialled(Tunnel):
    """`url`: of the hub, as the request's Host has it."""

    def __init__(
        self,
        url: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        judge: Callable[[Tunnel, Frame], None],
    ) -> None:
        self._client = ClientProtocol(parse_uri(url), extensions=None, max_size=MAX_MESSAGE, logger=QUIET)
        super().__init__(self._client, reader, writer, judge)

    async def ask(self, line: str, more: Headers, end: bytes) -> Response:
        """The answer to a request with this line, `more` headers in place of those of the same name (None for without
        it, a list for more than one), and this end. Raises Broken for a 101 that is none, and
        ConnectionError if there is no answer."""
        headers: Headers = {**dict(self._client.connect().headers.raw_items()), "User-Agent": "conformance", **more}
        lines = [line]
        for name, value in headers.items():
            for one in [value] if isinstance(value, str) else value or []:
                lines.append(f"{name}: {one}")
        self._writer.write("\r\n".join([*lines, ""]).encode("latin-1") + end)
        response: Response | None = None
        while response is None:
            await self._hear()
            response = next((one for one in self._ws.events_received() if isinstance(one, Response)), None)
        if response.status_code == 101:
            for name in ("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"):
                if name in response.headers:
                    raise Broken("1.2", f"the answer has {name}")
            if self._client.handshake_exc is not None:
                raise Broken("1", f"the answer is no WebSocket handshake: {self._client.handshake_exc}")
        return response

    async def _hear(self) -> None:
        """Some bytes of the answer, or its end: a refusal's body may end with the connection."""
        try:
            await self._read()
        except ConnectionError:
            if self._client.state is State.CONNECTING and self._client.handshake_exc is None:
                self._client.receive_eof()
            if self._client.handshake_exc is None or not self._client.events:
                raise
