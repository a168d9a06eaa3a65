"""The WebSocket opening handshake, both sides, as bytes in and bytes out (RFC 6455, section 4). The rules are the
library's."""

from __future__ import annotations

from collections.abc import Iterable

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request
from websockets.http11 import Response as HttpAnswer
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from ncfast.core.errors import NcfastError
from ncfast.net.links import QUIET
from ncfast.net.request import Response

# how other servers begin that a wrong port leads to; any other than HTTP is not told by name
OTHERS = ((b"SSH-", "an SSH server answers there"), (b"\x15\x03", "TLS is spoken there: the URL begins with wss://"))
HTTP = b"HTTP/"
MAX_ANSWER = 16384  # bytes of the answer to a handshake
NO_UPGRADE = frozenset({426, 505})  # what a hub answers to a request without Upgrade, or over HTTP/1.0


class UpgradeRefused(NcfastError):
    """The answer is not 101. `reason` is a word for log and status; `status` the HTTP status, 0 if it is no answer to a
    handshake at all; `headers` are those of the answer."""

    def __init__(
        self, status: int, headers: Headers | None = None, text: str = "the answer is no WebSocket handshake"
    ) -> None:
        self.status = status
        self.headers = headers or Headers()
        if status:
            text = f"HTTP {status}"
        if status in NO_UPGRADE:
            self.reason = "no_upgrade"
            text = f"something on the way drops the headers Upgrade and Connection, or HTTP/1.1 ({text})"
        elif status < 400:  # a page, or the way to one
            self.reason = "not_a_hub"
        else:
            self.reason = f"http_{status}"
        super().__init__(text)


class ClientUpgrade:
    """The side that asks. No extensions, no subprotocol."""

    def __init__(self, url: str, headers: Iterable[tuple[str, str]]) -> None:
        self._ws = ClientProtocol(parse_uri(url), extensions=None, logger=QUIET)
        self._headers = list(headers)
        self._answer = bytearray()
        self.headers = Headers()  # of the answer, once it is there

    def request(self) -> bytes:
        """What to send, once."""
        request = self._ws.connect()
        for name, value in self._headers:
            request.headers[name] = value
        self._ws.send_request(request)
        return b"".join(self._ws.data_to_send())

    def feed(self, data: bytes) -> bytes | None:
        """None while the answer is incomplete; then the bytes behind it, of the WebSocket already. Raises
        UpgradeRefused."""
        self._answer += data
        _refuse_others(self._answer)
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._answer) > MAX_ANSWER:
                raise UpgradeRefused(0)
            return None
        head, rest = bytes(self._answer[: end + 4]), bytes(self._answer[end + 4 :])
        self._ws.receive_data(head)
        if not head.startswith(b"HTTP/1.1 101 ") and self._ws.handshake_exc is None:
            self._ws.receive_data(rest)  # the refusal's body
            if self._ws.handshake_exc is None:
                self._ws.receive_eof()
        for event in self._ws.events_received():
            if isinstance(event, HttpAnswer):
                self.headers = event.headers
        if self._ws.state is State.OPEN:
            return rest
        exc = self._ws.handshake_exc
        if not isinstance(exc, InvalidStatus):
            raise UpgradeRefused(0)
        raise UpgradeRefused(exc.response.status_code, exc.response.headers)


def _refuse_others(answer: bytearray) -> None:
    """Raises UpgradeRefused as soon as the answer is none of HTTP: many servers would wait for more from us."""
    if answer.startswith(HTTP[: len(answer)]):
        return
    for greeting, text in OTHERS:
        if answer.startswith(greeting):
            raise UpgradeRefused(0, text=text)
    if not any(greeting.startswith(answer) for greeting, _ in OTHERS):
        raise UpgradeRefused(0, text="what answers there does not speak HTTP")


def accept(request: Request) -> tuple[bytes, Response | None]:
    """The side that answers: the bytes of a 101 and None, or what to answer instead."""
    handshake = ServerProtocol(extensions=None, logger=QUIET)
    response = handshake.accept(request)
    handshake.send_response(response)
    if response.status_code != 101:
        return b"", Response(response.status_code, "text/plain; charset=utf-8", bytes(response.body or b""))
    return b"".join(handshake.data_to_send()), None
