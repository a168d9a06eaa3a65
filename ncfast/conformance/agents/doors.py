"""The ways to the scripted hubs: a listening socket for each, by TLS where the scenario wants it, and an HTTP proxy
before them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from ncfast.conformance.broken import Broken
from ncfast.conformance.certificates import hub_certificate, load, only_old
from ncfast.net.tls import bare_context

LOOPBACK = "127.0.0.1"
MOST = 8192  # bytes of a request to the proxy
OLD = "TLS 1.1"  # a hub that speaks nothing newer

Taken = Callable[[socket.socket], Coroutine[Any, Any, None]]


class Door:
    """Hands each connection to `taken`, from `open` on; until then they wait in the kernel."""

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._socket = socket.create_server((LOOPBACK, 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            taken, _ = self._socket.accept()
            taken.setblocking(False)
            task = asyncio.ensure_future(self._taken(taken))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """What is being accepted ends, too."""
        for task in self._tasks:
            task.cancel()
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()


class Secured:
    """The hub's side of TLS for one connection. `kind`: of the certificate, or OLD."""

    def __init__(self, kind: str, host: str) -> None:
        self._host = host
        self._asked: str | None = None  # by SNI
        self.context = bare_context(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_alpn_protocols(["h2", "http/1.1"])  # seen if offered
        self.context.sni_callback = self._on_name
        load(self.context, hub_certificate("right" if kind == OLD else kind, host))
        if kind == OLD:
            only_old(self.context)

    def _on_name(self, _: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        self._asked = name

    def judge(self, writer: asyncio.StreamWriter) -> None:
        """What the agent has asked for. Raises Broken."""
        if self._asked != self._host:
            raise Broken("1.14", f"the server name (SNI) is {self._asked!r}, and the URL's host {self._host!r}")
        if (chosen := writer.get_extra_info("ssl_object").selected_alpn_protocol()) is not None:
            raise Broken("1.14", f"ALPN offers {chosen}")


async def streams(
    taken: socket.socket, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Of a connection that was accepted. Raises OSError (ssl.SSLError is one) if TLS does not come about."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, taken, ssl=context)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def connected(taken: socket.socket, status: int) -> str:
    """Reads a CONNECT request, and answers it with this status. Whom it is for, as `host:port`. Raises Broken, and
    ConnectionError if the agent goes away."""
    loop, request = asyncio.get_running_loop(), b""
    while b"\r\n\r\n" not in request and len(request) < MOST:
        data = await loop.sock_recv(taken, MOST)
        if not data:
            raise ConnectionResetError
        request += data
    head, _, behind = request.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or words[0] != "CONNECT" or not words[2].startswith("HTTP/1."):
        raise Broken("1.20", f"the proxy is asked by {line!r}")
    if behind:
        raise Broken("1.20", "something comes behind CONNECT, which is not answered yet")
    if any(one.lower().startswith("authorization:") for one in lines):
        raise Broken("1.20", "the proxy is shown the token")
    end = "" if status == 200 else "Content-Length: 0\r\n"
    await loop.sock_sendall(taken, f"HTTP/1.1 {status} conformance\r\n{end}\r\n".encode())
    return words[1]
