"""From a peer's URL to a link: tls://, tcp://, unix://, and wss:// or ws:// through an HTTP ingress."""

from __future__ import annotations

import asyncio
import ssl
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ncfast import __version__
from ncfast.core.errors import NcfastError
from ncfast.mesh.binding import dialled
from ncfast.mesh.peer import Peer
from ncfast.mesh.states import Way
from ncfast.mesh.trust import Credential, Refused, is_replicas, names_in_der
from ncfast.net.carrier import TransportCarrier
from ncfast.net.handshake import ClientUpgrade, UpgradeRefused
from ncfast.net.links import carry_stream, carry_websocket
from ncfast.net.peercred import same_user
from ncfast.net.tls import is_plain

if TYPE_CHECKING:
    from ncfast.mesh.manager import Mesh

Admit = Callable[[str], bool]

DIAL_TIMEOUT = 5.0  # seconds for name look-up, TCP, TLS and HTTP together


class DialFailed(NcfastError):
    """No link came about. `reason` is a word for log and status."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


async def dial(mesh: Mesh, way: Way, url: str, admit: Admit | None = None) -> Peer:
    """A peer whose link is there, and which has not said anything yet. `admit` is asked for each address that the URL's
    host leads to; a URL of the file has none. Raises DialFailed."""
    connecting = Connecting(mesh, way, url, admit)
    try:
        async with asyncio.timeout(DIAL_TIMEOUT):
            return await connecting.run()
    except DialFailed:
        raise
    except TimeoutError:
        raise DialFailed("timeout", f"no answer within {DIAL_TIMEOUT:g} s") from None
    except UpgradeRefused as exc:
        raise DialFailed(exc.reason, str(exc)) from None
    except Refused as exc:
        mesh.refused(exc.reason, connecting.remote, exc.detail)
        raise DialFailed(exc.reason, exc.detail) from None
    except ssl.SSLCertVerificationError as exc:
        raise DialFailed("certificate", f"the certificate is not trusted: {exc.verify_message}") from None
    except ssl.SSLError as exc:
        why = "the far end does not speak TLS" if is_plain(exc) else exc.reason or type(exc).__name__
        raise DialFailed("tls", f"TLS handshake failed ({why})") from None
    except OSError as exc:
        raise DialFailed("unreachable", exc.strerror or type(exc).__name__) from None
    finally:
        connecting.close_unless_done()


class Connecting(asyncio.Protocol):
    """The connection until a link is on it."""

    def __init__(self, mesh: Mesh, way: Way, url: str, admit: Admit | None) -> None:
        self._mesh = mesh
        self._way = way
        self._url = url
        self._admit = admit
        self._transport: Any = None
        self._upgrade: ClientUpgrade | None = None
        self._answered: asyncio.Future[bytes] | None = None
        self._lost = False
        self._done = False
        self.remote = ""

    async def run(self) -> Peer:
        net = self._mesh.net
        parts = urllib.parse.urlsplit(self._url)
        host = parts.hostname or ""
        if parts.scheme in ("tcp", "ws"):
            self._mesh.policy.of_answer(parts.scheme, None, False, False)  # before a byte is sent
        if parts.scheme == "unix":
            self._transport = await net.connect_unix(parts.path, self, timeout=DIAL_TIMEOUT)
        else:
            context = await self._context(parts.scheme)
            port = parts.port or (443 if parts.scheme == "wss" else 80)
            self._transport = await net.connect(
                host,
                port,
                self,
                timeout=DIAL_TIMEOUT,
                share="peer",
                ssl=context,
                admit=self._admit,
            )
        where = self._transport.get_extra_info("peername")
        self.remote = f"{where[0]}:{where[1]}" if isinstance(where, tuple) else "unix"
        credential = self._credential(parts.scheme)
        if parts.scheme not in ("ws", "wss"):
            return self._put(credential, b"")
        self._answered = net.loop.create_future()
        self._upgrade = ClientUpgrade(self._url, [("User-Agent", f"ncfast/{__version__}")])
        self._transport.write(self._upgrade.request())
        return self._put(credential, await self._answered, websocket=True)

    async def _context(self, scheme: str) -> ssl.SSLContext | None:
        if scheme == "tls":
            if self._mesh.keys.certificates is None:
                raise DialFailed("no_certificates", "tls:// needs ha.mesh.tls")
            return self._mesh.keys.certificates.client
        return await self._mesh.keys.web_context() if scheme == "wss" else None

    def _credential(self, scheme: str) -> Credential:
        """What the far end has shown by now. A replica's certificate counts on wss:// if the mesh's authority has
        issued it: TLS there trusts the system's authorities as well."""
        names = None
        if scheme in ("tls", "wss"):
            der = self._transport.get_extra_info("ssl_object").getpeercert(True)
            names = names_in_der(der)
            certificates = self._mesh.keys.certificates
            if scheme == "wss" and not (is_replicas(names) and certificates is not None and certificates.issued(der)):
                names = None
        machine = scheme == "unix" and same_user(self._transport.get_extra_info("socket"))
        return self._mesh.policy.of_answer(scheme, names, machine, self._admit is None)

    def _put(self, credential: Credential, early: bytes, websocket: bool = False) -> Peer:
        mesh = self._mesh
        if self._lost:
            raise DialFailed("closed", "the connection was closed at once")
        peer = Peer(
            mesh,
            self._way,
            credential,
            dialled(self._transport, self._url),
            dialled=True,
            remote=self.remote,
            carrier="websocket" if websocket else "stream",
            tls=self._transport.get_extra_info("ssl_object") is not None,
        )
        carrier: TransportCarrier
        if websocket:
            link, carrier = carry_websocket(
                mesh.ground, self._transport, peer, mesh.bounds, client=True, peer=self._url
            )
        else:
            link, carrier = carry_stream(mesh.ground, self._transport, peer, mesh.bounds, peer=self._url)
        self._done = True
        mesh.net.opened()
        peer.link = link
        if early:
            mesh.net.call_soon(carrier.feed, early)
        return peer

    def close_unless_done(self) -> None:
        """Call when `run` is over, however."""
        if not self._done and self._transport is not None:
            self._transport.abort()
        if self._answered is not None and not self._answered.done():
            self._answered.cancel()

    # asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._upgrade is None or self._answered is None or self._answered.done():
            self._lost = True  # a hub that is dialled does not speak before HELLO
            self._transport.abort()
        else:
            try:
                rest = self._upgrade.feed(data)
            except UpgradeRefused as exc:
                self._answered.set_exception(exc)
            else:
                if rest is not None:
                    self._answered.set_result(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(
                exc
                if isinstance(exc, OSError)
                else DialFailed("closed", "the connection was closed during the handshake")
            )
