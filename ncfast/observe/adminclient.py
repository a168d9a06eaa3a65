"""Asking the admin edge of a hub, or of an agent."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ncfast.core.errors import NcfastError

_TIMEOUT_SEC = 5
_MAX_TEXT = 1000  # bytes of a refusal
_MAX_BYTES = 64 * 1024 * 1024  # ten thousand agents take some 4 MiB
_WHERE = "the admin edge is at the hub's admin.bind (127.0.0.1:9400 unless told otherwise)"
_AN = {"hub": "a hub", "agent": "an agent"}
_REFUSALS = frozenset({400, 401, 403, 409, 421})  # whose text is the hub's own


class Unavailable(NcfastError):
    """Nothing that answers like a hub's admin edge is there."""


class Refused(NcfastError):
    """The hub does not do what it was asked; the text is its own."""


@dataclass(frozen=True, slots=True)
class Place:
    """An admin edge: ``http://``, ``https://`` or ``unix:/path``, and what is shown and trusted there."""

    url: str
    token_file: Path | None = None
    tls: ssl.SSLContext | None = None  # for https://; the system's authorities unless it says others


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SEC)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SEC)
        self.sock.connect(self._path)


def status(at: str | Place, role: str = "hub") -> dict[str, Any]:
    """The document of ``/status`` of a hub, or of an agent. Raises `Unavailable` or `Refused`."""
    document = ask(at, "/status")
    if document.get("role") != role:
        where = _WHERE if role == "hub" else "an agent answers where its file's section admin says"
        raise Unavailable(f"{_url(at)}/status does not answer with the status of {_AN[role]}; {where}")
    return document


def ask(at: str | Place, path: str, method: str = "GET") -> dict[str, Any]:
    """A JSON answer of the admin edge. Raises `Unavailable`, or `Refused`."""
    try:
        document = json.loads(fetch(at, path, method))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"{_url(at)}{path} does not answer as a hub does; {_WHERE}")
    return document


def fetch(at: str | Place, path: str, method: str = "GET") -> bytes:
    """An answer as it is; proxies of the environment are not asked. Raises `Unavailable`, or `Refused`."""
    place = at if isinstance(at, Place) else Place(at)
    url = place.url + path
    try:
        connection, target = _connection(place, path)
        try:
            connection.request(method, target, headers=_credentials(place))
            answer = connection.getresponse()
            if answer.status in _REFUSALS:
                raise Refused(_printable(answer.read(_MAX_TEXT).decode(errors="replace")))
            if not 200 <= answer.status < 300:
                raise Unavailable(f"{url} answers {answer.status}, as no admin edge does; {_WHERE}")
            return answer.read(_MAX_BYTES)
        finally:
            connection.close()
    except OSError as error:
        why = error.strerror or str(error) or "not in time"
        raise Unavailable(f"no answer from {url}: {why}; does it run, and is --url its admin edge?") from None
    except (HTTPException, ValueError):
        raise Unavailable(f"{url} does not answer as a hub does; {_WHERE}") from None


def _connection(place: Place, path: str) -> tuple[HTTPConnection, str]:
    """Not yet connected, and the request's target there."""
    if place.url.startswith("unix:"):
        return _UnixConnection(place.url.removeprefix("unix:").removeprefix("//")), path
    url = urlsplit(place.url)
    host = url.hostname or ""
    if url.scheme == "https":
        return HTTPSConnection(host, url.port, timeout=_TIMEOUT_SEC, context=place.tls), url.path + path
    return HTTPConnection(host, url.port, timeout=_TIMEOUT_SEC), url.path + path


def _credentials(place: Place) -> dict[str, str]:
    if place.token_file is None:
        return {}
    try:
        return {"Authorization": f"Bearer {place.token_file.read_text().strip()}"}
    except OSError as exc:
        raise Refused(f"--token-file {place.token_file}: {exc.strerror}") from None


def _url(at: str | Place) -> str:
    return at.url if isinstance(at, Place) else at


def _printable(text: str) -> str:
    """One line; control characters from a far end cannot reach the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text.strip())
