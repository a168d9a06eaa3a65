"""Fetching one document over HTTPS: from one host, without redirects, bounded in time and size."""

from __future__ import annotations

import asyncio
import http.client
import io
import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ncfast.core.errors import NcfastError
from ncfast.net.seam import Net
from ncfast.net.tls import web_context

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

    The certificate is checked against `ca_file`, or the system's authorities. Each call connects afresh. Raises
    ValueError for a URL, OSError for a CA file, that is of no use.
    """

    def __init__(self, net: Net, url: str, ca_file: str | Path | None = None) -> None:
        parts = check_https_url(url)
        self._net = net
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
        return _body(answer)

    async def _exchange(self) -> bytes:
        """Everything the server sends until it closes, which `Connection: close` obliges it to do."""
        answer = _Answer(self._net)
        transport = await self._net.connect(
            self._host, self._port, answer, timeout=TIMEOUT_SEC, share="keys", ssl=self._context
        )
        try:
            transport.write(self._request)
            return await answer.whole
        finally:
            transport.abort()


class _Answer(asyncio.Protocol):
    """What a server sends, until it closes. `whole` becomes the bytes, or what went wrong."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._bytes = bytearray()
        self.whole: asyncio.Future[bytes] = net.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._net.opened()

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        if len(self._bytes) > MAX_HEAD_BYTES + MAX_BODY_BYTES and not self.whole.done():
            self.whole.set_exception(FetchError(f"the answer is larger than {MAX_BODY_BYTES} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._net.gone()
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
