"""The smallest HTTP/1.1 that the edges need: one request, one answer, close; and the admin edge's server of it.

The parser is the one of websockets (strict: CRLF only, no folding, no transfer codings, no bodies); what is
added here are the bounds in bytes, headers and time, and a close that neither waits for ever nor loses the
answer.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import HeaderLineTooLong, RequestLineTooLong, TooManyHeaders
from websockets.http11 import Request
from websockets.http11 import Response as WireResponse
from websockets.streams import StreamReader

from ncfast.core.errors import NcfastError
from ncfast.net.newcomers import Newcomers, source_of
from ncfast.net.seam import Net
from ncfast.observe import log

_log = log.get("http")


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one connection; the defaults are those of the tunnel's handshake."""

    timeout_sec: float = 5.0  # from the connect to the whole request; at HttpServer again from the answer to the close
    max_bytes: int = 8192  # request line and headers; what most servers take
    max_headers: int = 64
    max_connections: int = 64  # at once on one server; beyond, one makes room


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; length, closing and caching headers are added on the wire."""

    status: int
    content_type: str
    body: bytes | list[bytes]  # a long one in parts, which nobody copies together
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def text(cls, status: int, text: str, *headers: tuple[str, str]) -> Response:
        return cls(status, "text/plain; charset=utf-8", text.encode() + b"\n", headers)

    def serialize(self, head_only: bool = False) -> list[bytes]:
        body = [self.body] if isinstance(self.body, bytes) else self.body
        headers = Headers(
            [
                ("Date", formatdate(usegmt=True)),  # RFC 9110, section 6.6.1; an agent holds its own clock against it
                ("Content-Type", self.content_type),
                ("Content-Length", str(sum(map(len, body)))),
                ("Connection", "close"),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                *self.headers,
            ]
        )
        head = WireResponse(self.status, HTTPStatus(self.status).phrase, headers, b"").serialize()
        return [head] if head_only else [head, *body]


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that goes on until the peer goes: server-sent events, as the HTML standard has them (9.2).

    `run` gets what sends one event, whose text has no line breaks, and waits until the peer takes it.
    """

    run: Callable[[Callable[[bytes], Coroutine[Any, Any, None]]], Coroutine[Any, Any, None]]
    patience: float  # seconds that the peer may leave an event unread; then the connection ends

    def head(self) -> bytes:
        headers = Headers(
            [
                ("Content-Type", "text/event-stream"),
                ("Connection", "close"),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
            ]
        )
        return WireResponse(200, HTTPStatus.OK.phrase, headers, b"").serialize()


Answer = Response | Stream | Coroutine[Any, Any, Response]  # a coroutine answers in later turns of the loop
Handler = Callable[[Request], Answer]

LINGER = 2.0  # seconds that an answered connection may take to close its side


def answer(
    transport: asyncio.Transport,
    response: Response,
    call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
    *,
    head_only: bool = False,
    linger: float = LINGER,
) -> asyncio.TimerHandle:
    """Writes the answer, ends our side, and leaves it to the peer to close: what it has sent meanwhile, unread, would
    turn our close into a reset, which can overtake the answer. Whoever calls this drops what still comes.

    Returns the timer that ends the connection after `linger` seconds; cancel it when the connection is lost.
    """
    timer = call_later(linger, transport.abort)
    transport.writelines(response.serialize(head_only))
    if transport.can_write_eof():
        try:
            transport.write_eof()
        except OSError:  # the peer has reset the connection, and the loop has not told yet
            transport.abort()
    else:
        transport.close()
    return timer


class BadRequest(NcfastError):
    """The peer's request cannot be read; ``status`` says how to answer it. Its text is one of ours."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class RequestReader:
    """Bytes in, one request out; no sockets, no clock."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._stream = StreamReader()
        self._parser = Request.parse(self._stream.read_line)
        self._received = 0

    def feed(self, data: bytes) -> Request | None:
        """The request when ``data`` completes it, None while it is incomplete; raises `BadRequest`."""
        self._received += len(data)
        self._stream.feed_data(data)
        request: Request | None = None
        try:
            next(self._parser)
        except StopIteration as done:
            request = done.value
        except RequestLineTooLong:
            raise BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG, "request_line_too_long") from None
        except (HeaderLineTooLong, TooManyHeaders):
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large") from None
        except (ValueError, EOFError, NotImplementedError):  # malformed, bare LF, transfer coding or body
            raise BadRequest(HTTPStatus.BAD_REQUEST, "malformed") from None
        head = self._received - (len(self._stream.buffer) if request else 0)
        if head > self._limits.max_bytes:
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large")
        if request:
            self._check(request)
        return request

    @property
    def rest(self) -> bytes:
        """Bytes that came after the request."""
        return bytes(self._stream.buffer)

    def _check(self, request: Request) -> None:
        if len(list(request.headers.raw_items())) > self._limits.max_headers:
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers")
        hosts = len(request.headers.get_all("Host"))
        if hosts > 1 or (hosts == 0 and request.protocol == "HTTP/1.1"):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "host_header")


class HttpProtocol(asyncio.Protocol):
    """One connection: reads one request within the limits, answers, closes."""

    def __init__(self, handler: Handler, limits: HttpLimits, net: Net, live: Newcomers[HttpProtocol]) -> None:
        self._handler = handler
        self._limits = limits
        self._net = net
        self._live = live
        self._reader: RequestReader | None = RequestReader(limits)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None  # of TLS, until the transport is there
        self._timer: asyncio.TimerHandle
        self._making: asyncio.Task[None] | None = None
        self._ended = False  # the peer has closed its side
        self._streams = False  # the answer goes on
        self._done = False  # we have ended it
        self._takes = asyncio.Event()  # whether the peer takes what is written
        self._takes.set()

    def open(self, sock: socket.socket, source: str, context: ssl.SSLContext | None) -> None:
        """Takes the socket; the time for the request runs from now on, TLS included."""
        self._timer = self._net.call_later(self._limits.timeout_sec, self._request_late)
        self._task = self._net.adopt(sock, self, context)
        self._live.enter(self, source)

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._task = None
        self._transport = transport  # type: ignore[assignment]
        if self._done:  # ended while TLS came about
            self.abort()

    def handshake_failed(self, exc: Exception) -> None:
        """TLS did not come about."""
        self._task = None
        self._refused("tls")
        self._leave()

    def data_received(self, data: bytes) -> None:
        if self._reader is None:  # answered; what still comes is read and dropped until the timer
            return
        try:
            request = self._reader.feed(data)
            if request and self._reader.rest:
                raise BadRequest(HTTPStatus.BAD_REQUEST, "bytes_after_request")  # a body, or pipelining
        except BadRequest as bad:
            self._refused(bad.reason)
            self._answer(Response.text(bad.status, bad.status.phrase))
        else:
            if request:
                self._handle(request)

    def eof_received(self) -> bool:
        self._ended = True
        return self._making is not None and not self._streams  # the answer is still to be written

    def connection_lost(self, exc: Exception | None) -> None:
        if self._making is not None:
            self._making.cancel()
        self._leave()

    def pause_writing(self) -> None:
        self._takes.clear()

    def resume_writing(self) -> None:
        self._takes.set()

    # the answer and the end

    def abort(self) -> None:
        """Ends the connection now, whatever it is at; its place is free at once."""
        self._leave()
        if self._transport is not None:
            self._transport.abort()
        elif self._task is not None:
            self._task.cancel()  # of a TLS handshake: the socket goes with it
            self._task = None

    def _leave(self) -> None:
        self._done = True
        self._timer.cancel()
        self._live.leave(self)

    def make_room(self) -> None:
        """Ends it, since there are too many."""
        self._refused("too_many_connections")
        self.abort()

    def _handle(self, request: Request) -> None:
        head_only = request.method == "HEAD"
        try:
            response = self._handler(request)
        except Exception:
            response = self._failed()
        if isinstance(response, Response):
            self._answer(response, head_only)
            return
        self._reader = None
        self._timer.cancel()
        if isinstance(response, Stream):
            self._streams = True
            self._making = self._net.spawn(self._stream(response, head_only), "http-stream")
        else:
            self._making = self._net.spawn(self._make(response, head_only), "http-answer")

    async def _stream(self, stream: Stream, head_only: bool) -> None:
        assert self._transport is not None  # a request has come by it
        self._transport.write(stream.head())
        try:
            if not head_only:
                await stream.run(lambda event: self._send(event, stream.patience))
        except TimeoutError:  # the peer is there, and reads no more
            self.abort()
            return
        except Exception:
            _log.exception("http_handler_failed")
        self._making = None
        self._transport.close()

    async def _send(self, event: bytes, patience: float) -> None:
        assert self._transport is not None
        self._transport.writelines((b"data: ", event, b"\n\n"))
        async with asyncio.timeout(patience):
            await self._takes.wait()

    async def _make(self, response: Coroutine[Any, Any, Response], head_only: bool) -> None:
        try:
            made = await response
        except Exception:
            made = self._failed()
        self._making = None
        self._answer(made, head_only)
        if self._ended and self._transport is not None:
            self._transport.close()

    def _failed(self) -> Response:
        _log.exception("http_handler_failed")
        return Response.text(500, "Internal Server Error")

    def _answer(self, response: Response, head_only: bool = False) -> None:
        assert self._transport is not None  # a request has come by it
        self._reader = None
        self._timer.cancel()
        self._timer = answer(
            self._transport, response, self._net.call_later, head_only=head_only, linger=self._limits.timeout_sec
        )

    def _request_late(self) -> None:
        self._refused("request_timeout")
        if self._transport is None:  # there is nobody to tell before TLS has come about
            self.abort()
            return
        self._answer(Response.text(408, "Request Timeout"))

    def _refused(self, reason: str) -> None:
        _log.warning("http_refused", reason=reason, remote=self._remote())

    def _remote(self) -> object:
        return self._transport.get_extra_info("peername") if self._transport is not None else None


class HttpServer:
    """Answers the connections of listening sockets and knows which of them live."""

    def __init__(self, handler: Handler, limits: HttpLimits, net: Net) -> None:
        self._handler = handler
        self._limits = limits
        self._net = net
        self._live: Newcomers[HttpProtocol] = Newcomers(limits.max_connections, HttpProtocol.make_room)

    def accept(
        self, sock: socket.socket, peer: Any, context: ssl.SSLContext | None = None, handler: Handler | None = None
    ) -> None:
        """Takes an accepted socket; `handler` if another than the server's answers at where it came in."""
        protocol = HttpProtocol(handler or self._handler, self._limits, self._net, self._live)
        protocol.open(sock, source_of(peer[0]) if peer else "", context)

    def close(self) -> None:
        """Ends every open connection."""
        for connection in self._live:
            connection.abort()
