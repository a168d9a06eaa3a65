"""Where other hubs connect: `mesh.listen` and `mesh.listen_unix`. The first byte says what comes: 0x16 TLS, 'G' HTTP,
0x01 frames.

A connection is an `Entrance` until a link is on it, or it is turned away. Entrances, and links whose handshake is not
over, share one bound (`ncfast.net.newcomers`).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Protocol

from websockets.http11 import Request

from ncfast.mesh.trust import Credential, Refused, names_in_der
from ncfast.net.peercred import same_user
from ncfast.net.request import BadRequest, HttpLimits, RequestReader, Response, answer

if TYPE_CHECKING:
    from ncfast.mesh.manager import Mesh

ENTRANCE_TIMEOUT = 5.0  # seconds from accept to the first frame's link: first byte, TLS, HTTP
RAW, HTTP, TLS = 0x01, ord("G"), 0x16


class Hall(Protocol):
    """Where entrances lead to (`ncfast.mesh.door`)."""

    def put_stream(
        self, transport: Any, credential: Credential, host: str | None, remote: str, early: bytes
    ) -> None: ...

    def serve_http(
        self,
        request: Request,
        transport: Any,
        *,
        host: str | None,
        remote: str,
        names: frozenset[str] | None,
        machine: bool,
    ) -> Response | None: ...

    def left(self, one: Entrance) -> None: ...


class Entrance(asyncio.Protocol):
    """An accepted connection until a link is on it. `host` is the peer's address, None on a Unix socket."""

    def __init__(self, mesh: Mesh, door: Hall, sock: Any, host: str | None, remote: str) -> None:
        self._mesh = mesh
        self._door = door
        self._sock = sock
        self._host = host
        self.remote = remote
        self._transport: Any = None
        self._task: asyncio.Task[None] | None = None
        self._stop_peeking: Any = None
        self._names: frozenset[str] | None = None  # of a certificate that TLS has verified
        self._machine = same_user(sock)
        self._reader: RequestReader | None = None
        self._answered = False
        self._over = False
        self._counted = True  # among the process's connections
        self._timer = mesh.net.call_later(ENTRANCE_TIMEOUT, self._late)

    def open(self) -> None:
        """Takes the socket. Without certificates there is no TLS to tell apart, and the first byte can be read with the
        others."""
        if self._mesh.keys.certificates is None:
            self._adopt(None)
        else:
            self._stop_peeking = self._mesh.net.peek(self._sock, self._first_byte)

    def _first_byte(self, byte: bytes) -> None:
        self._stop_peeking = None  # it has
        if not byte:
            self.abort()
        elif byte[0] == TLS and self._mesh.keys.certificates is not None:
            self._adopt(self._mesh.keys.certificates.server)
        else:
            self._adopt(None)

    def _adopt(self, context: ssl.SSLContext | None) -> None:
        sock, self._sock = self._sock, None
        self._task = self._mesh.net.adopt(sock, self, context)

    # asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._over:
            transport.abort()
            return
        secured = transport.get_extra_info("ssl_object")
        if secured is not None:
            try:
                self._names = names_in_der(secured.getpeercert(True))
            except Refused as exc:
                self._turn_away(exc)

    def data_received(self, data: bytes) -> None:
        if self._answered or self._over:
            return
        try:
            if self._reader is not None:
                self._read(self._reader, data)
            elif data[0] == RAW:
                credential = self._mesh.policy.of_frames(self._names, self._machine)
                self._leave()
                self._door.put_stream(self._transport, credential, self._host, self.remote, data)
            elif data[0] == HTTP:
                self._reader = RequestReader(HttpLimits())
                self._read(self._reader, data)
            elif data[0] == TLS:
                raise Refused("no_certificates", "TLS came, and ha.mesh.tls is not set")
            else:
                raise Refused("not_mesh", "the first byte is none of a peer's")
        except Refused as exc:
            self._turn_away(exc)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._timer.cancel()
        self._uncount()

    def handshake_failed(self, exc: Exception) -> None:
        """TLS did not come about."""
        if self._over:
            return
        untrusted = isinstance(exc, ssl.SSLError) and "certificate" in (exc.reason or "").lower()
        self._leave()
        self._uncount()
        self._mesh.refused(
            "certificate" if untrusted else "tls",
            self.remote,
            "no client certificate, or not one of the mesh's authority" if untrusted else "TLS handshake failed",
        )

    def _read(self, reader: RequestReader, data: bytes) -> None:
        try:
            request = reader.feed(data)
        except BadRequest as exc:
            self._refuse_http(exc.reason, Response.text(exc.status, exc.status.phrase))
            return
        if request is None:
            return
        if reader.rest:
            self._refuse_http("early_bytes", Response.text(400, "Bytes after the request"))
            return
        response = self._door.serve_http(
            request, self._transport, host=self._host, remote=self.remote, names=self._names, machine=self._machine
        )
        if response is None:
            self._leave()
        else:
            self._answer(response)

    # endings

    def _refuse_http(self, reason: str, response: Response) -> None:
        self._mesh.refused(reason, self.remote, "")
        self._answer(response)

    def _answer(self, response: Response) -> None:
        self._answered = True
        self._timer.cancel()
        self._timer = answer(self._transport, response, self._mesh.net.call_later)

    def _turn_away(self, exc: Refused) -> None:
        self._mesh.refused(exc.reason, self.remote, exc.detail)
        self._transport.abort()

    def _late(self) -> None:
        if not self._over:
            self._mesh.refused("timeout", self.remote, "")
            self.abort()

    def abort(self) -> None:
        """Ends the connection now, whatever it is at."""
        if self._transport is not None:
            self._transport.abort()
            return
        self._leave()
        self._uncount()
        if self._stop_peeking is not None:
            self._stop_peeking()
        if self._sock is not None:
            self._sock.close()
        elif self._task is not None:
            self._task.cancel()  # of a TLS handshake: its transport goes with it

    def _uncount(self) -> None:
        if self._counted:
            self._counted = False
            self._mesh.net.gone()

    def _leave(self) -> None:
        """No longer an entrance."""
        if not self._over:
            self._over = True
            if not self._answered:
                self._timer.cancel()
            self._door.left(self)
