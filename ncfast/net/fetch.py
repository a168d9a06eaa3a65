"""Fetching one document over HTTPS: from one host, without redirects, bounded in time and size."""

from __future__ import annotations

import asyncio
import http.client
import io
import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import aiofastnet

from ncfast.core.errors import NcfastError
from ncfast.net.httpproxy import ConnectReply, ProxyRefused, ProxyReplyError, ProxySettingError, choose, connect_request
from ncfast.net.seam import Net
from ncfast.net.tls import web_context
from ncfast.net.watched import Watched

TIMEOUT_SEC = 2.0  # name lookup, connection, TLS, answer: all together
MAX_BODY_BYTES = 256 * 1024
MAX_HEAD_BYTES = 32 * 1024

_URL = re.compile(r"[!-\[\]-~]{1,2048}")  # printable ASCII, no space and no backslash
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f:.]*:[0-9a-f:.]*")


class FetchError(NcfastError):
    """The document could not be had. The text names the kind of failure, and quotes nothing received."""


def check_https_url(url: str) -> SplitResult:
    """The parts of an absolute https URL, or ValueError, whose text says why not: no other scheme, no user, no
    fragment."""
    if _URL.fullmatch(url) is None:
        raise ValueError("it must be at most 2048 printable ASCII characters")
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise ValueError("it must begin with https://")
    if not parts.hostname or _HOST.fullmatch(parts.hostname) is None:
        raise ValueError("it has no usable host name")
    if "@" in parts.netloc:
        raise ValueError("it must not contain a user name or password")
    if "#" in url:
        raise ValueError("it must not contain a fragment")
    if parts.port == 0:
        raise ValueError("port 0 cannot be connected to")
    return parts


class HttpsFetch:
    """Calling it gives the body of a 200 answer, or raises `FetchError`.

    The certificate is checked against `ca_file`, read again when it changes, or the system's authorities. `proxy` is
    'env', 'off' or an HTTP proxy's URL. Each call connects afresh. Raises ValueError for a URL, OSError for a CA file,
    that is of no use.
    """

    def __init__(self, net: Net, url: str, ca_file: Path | None = None, proxy: str = "off") -> None:
        parts = check_https_url(url)
        self._net = net
        self._url = url
        self._proxy = proxy
        self._ca_file = ca_file
        self._files = Watched([ca_file] if ca_file is not None else [])
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._request = (
            f"GET {parts.path or '/'}{'?' + parts.query if parts.query else ''} HTTP/1.1\r\n"
            f"Host: {parts.netloc}\r\n"
            "Accept: application/json\r\n"
            "User-Agent: ncfast\r\n"
            "Connection: close\r\n"
            "\r\n"
        ).encode("ascii")
        self._context = web_context(ca_file)

    async def __call__(self) -> bytes:
        try:
            async with asyncio.timeout(TIMEOUT_SEC):
                answer = await self._exchange()
        except TimeoutError:
            raise FetchError(f"no answer within {TIMEOUT_SEC:g} s") from None
        except OSError as error:
            raise FetchError(f"connection failed: {type(error).__name__}") from None
        except (ProxySettingError, ProxyReplyError, ProxyRefused) as fault:
            raise FetchError(str(fault)) from None
        return _body(answer)

    def _renew(self) -> None:
        """Takes the CA file as it is now. Raises FetchError, once, for one that is of no use: the former stays."""
        try:
            self._context = web_context(self._ca_file)
        except OSError:
            raise FetchError("the CA file cannot be used, its former content stays in force") from None

    async def _exchange(self) -> bytes:
        """Everything the server sends until it closes, which `Connection: close` obliges it to do."""
        answer = _Answer(self._net)
        if self._files.changed():
            self._renew()
        proxy = choose(self._url, self._proxy)
        outer = self._context if proxy is None else web_context() if proxy.tls else None
        host, port = (self._host, self._port) if proxy is None else (proxy.host, proxy.port)
        transport = await self._net.connect(host, port, answer, timeout=TIMEOUT_SEC, share="keys", ssl=outer)
        try:
            if proxy is not None:
                passed = answer.passes(ConnectReply())
                transport.write(connect_request(self._host, self._port, proxy.credentials))
                await passed
                transport = await aiofastnet.start_tls(
                    self._net.loop,
                    transport,
                    answer,
                    self._context,
                    server_hostname=self._host,
                    ssl_handshake_timeout=TIMEOUT_SEC,
                )
            transport.write(self._request)
            return await answer.whole
        finally:
            transport.abort()


class _Answer(asyncio.Protocol):
    """What a server sends, until it closes. `whole` becomes the bytes, or what went wrong."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._bytes = bytearray()
        self._reply: ConnectReply | None = None
        self._passed: asyncio.Future[None] = net.loop.create_future()
        self.whole: asyncio.Future[bytes] = net.loop.create_future()

    def passes(self, reply: ConnectReply) -> asyncio.Future[None]:
        """Done when the proxy, whose `reply` comes first, has opened the way; or what went wrong."""
        self._reply = reply
        return self._passed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._net.opened()

    def data_received(self, data: bytes) -> None:
        if self._reply is not None:
            self._through(self._reply, data)
            return
        self._bytes += data
        if len(self._bytes) > MAX_HEAD_BYTES + MAX_BODY_BYTES and not self.whole.done():
            self.whole.set_exception(FetchError(f"the answer is larger than {MAX_BODY_BYTES} bytes"))

    def _through(self, reply: ConnectReply, data: bytes) -> None:
        if self._passed.done():
            return
        try:
            if reply.feed(data) is None:
                return
        except (ProxyRefused, ProxyReplyError) as fault:
            self._passed.set_exception(fault)
        else:
            self._reply = None
            self._passed.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._net.gone()
        if self._reply is not None:
            if not self._passed.done():
                self._passed.set_exception(exc or ConnectionResetError())
            return
        if self.whole.done():
            return
        if exc is None:
            self.whole.set_result(bytes(self._bytes))
        else:
            self.whole.set_exception(exc)


class _Received:
    """As much of a socket as `HTTPResponse` asks for: its parser is worth having, its blocking I/O is not."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._answer)


def _body(answer: bytes) -> bytes:
    response = http.client.HTTPResponse(_Received(answer))  # type: ignore[arg-type]
    try:
        response.begin()
        if response.status != 200:
            raise FetchError(f"HTTP status {response.status}")
        body = response.read()
    except (http.client.HTTPException, ValueError):
        raise FetchError("the answer is not whole or not HTTP") from None
    if len(body) > MAX_BODY_BYTES:
        raise FetchError(f"the answer is larger than {MAX_BODY_BYTES} bytes")
    return body
