"""Dialling a hub: TCP, HTTP proxy if there is one, TLS, WebSocket handshake; then a link."""

from __future__ import annotations

import asyncio
import enum
import errno
import socket
import ssl
import urllib.parse
from typing import TYPE_CHECKING, Any, Protocol

import aiofastnet

from ncfast import __version__
from ncfast.agent.ground import Ground
from ncfast.agent.reasons import description
from ncfast.core.errors import NcfastError
from ncfast.core.link import Link
from ncfast.net.connect import OUT_OF_DESCRIPTORS
from ncfast.net.handshake import ClientUpgrade, UpgradeRefused
from ncfast.net.httpproxy import (
    ConnectReply,
    Proxy,
    ProxyRefused,
    ProxyReplyError,
    ProxySettingError,
    choose,
    connect_request,
)
from ncfast.net.links import LinkBounds, carry_websocket
from ncfast.net.tls import is_plain, web_context

if TYPE_CHECKING:
    from ncfast.core.link import _Handler

    class Handler(_Handler, Protocol):
        """Whose frames the link brings; it is told of the link before any can come."""

        link: Link


REFUSED = "refused"  # a DialError's reason: nobody listens there
NO_ROUTE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


class DialError(NcfastError):
    """No tunnel came about. `reason` is a word for log and metric, `remedy` what to do about it, where that is plain,
    and `retry_after` the seconds the hub asked to wait, or None."""

    def __init__(self, reason: str, text: str, retry_after: float | None = None, *, remedy: str = "") -> None:
        super().__init__(f"{text}; {remedy}" if remedy else text)
        self.reason = reason
        self.text = text
        self.remedy = remedy
        self.retry_after = retry_after


async def dial(ground: Ground, url: str, token: str, handler: Handler) -> Link:
    """A link to the hub at `url`, its handshake done, within `reconnect.connect_timeout_sec`; `handler.link` is set to
    it. Raises DialError."""
    return await Opening(ground, url, token, handler).dial()


# What a certificate is not taken for, by OpenSSL's X509_V_ERR_ (x509_vfy.h), where it is no matter of the authority.
_DISTRUSTED = {
    9: "it does not count yet: is this machine's clock right?",
    10: "it has to be renewed at the hub; or is this machine's clock wrong?",
    62: "the URL needs a name that the certificate has",
    64: "the URL needs a name that the certificate has",
}


def _word(exc: OSError) -> str:
    """Why there is no connection: a port that nobody listens on, a way that does not exist and a name that is not found
    are put right by different people."""
    if exc.errno in OUT_OF_DESCRIPTORS:
        return "out_of_descriptors"
    if isinstance(exc, ConnectionRefusedError):
        return REFUSED
    if isinstance(exc, socket.gaierror):
        return "name"
    return "no_route" if exc.errno in NO_ROUTE else "unreachable"


class Step(enum.Enum):
    """What a dial is at; DNS and TCP are told apart by what they end with."""

    PROXY = "proxy"
    TLS = "TLS"  # and what is below it
    UPGRADE = "upgrade"


class Opening(asyncio.Protocol):
    """The connection until the tunnel stands."""

    def __init__(self, ground: Ground, url: str, token: str, handler: Handler) -> None:
        self._ground = ground
        self._url = url
        self._handler = handler
        self._parts = urllib.parse.urlsplit(url)
        self.secure = self._parts.scheme == "wss"
        self.host = self._parts.hostname or ""
        self.port = self._parts.port or (443 if self.secure else 80)
        self.step = Step.TLS
        self.upgrade = ClientUpgrade(
            url, [("Authorization", f"Bearer {token}"), ("User-Agent", f"ncfast/{__version__}")]
        )
        self.transport: Any = None
        self._reply: ConnectReply | None = None
        self._next: asyncio.Future[Any] = ground.net.loop.create_future()
        self._done = False

    async def dial(self) -> Link:
        """As `dial` has it; to be called once."""
        url, timeout = self._url, self._ground.config.reconnect.connect_timeout_sec
        try:
            async with asyncio.timeout(timeout):
                return await self._run(timeout)
        except TimeoutError:
            raise DialError("timeout", f"{url}: no answer within {timeout:g} s") from None
        except (ProxyRefused, ProxyReplyError) as exc:
            raise DialError("proxy", f"{url}: {exc}") from None
        except ssl.SSLCertVerificationError as exc:
            text = f"{url}: the hub's certificate is not trusted: {exc.verify_message}"
            remedy = _DISTRUSTED.get(exc.verify_code, "see tls.ca_file")
            raise DialError("certificate", text, remedy=remedy) from None
        except ssl.SSLError as exc:
            raise self._without_tls(exc) from None
        except ConnectionResetError:
            if self.secure and self._ground.trust.lapsed():  # not every hub's TLS says why it closes
                text = f"{url}: the connection was closed, and our certificate has expired"
                raise DialError("certificate", text, remedy="see tls.cert_file") from None
            hint = "" if self.secure else "if TLS is spoken there, the URL begins with wss://"
            if self.secure and self.step is Step.UPGRADE and not self._ground.trust.shows:
                hint = "a hub that wants client certificates closes so, too: see tls.cert_file"
            text = f"{url}: the connection was closed during the handshake"
            raise DialError("closed", text, remedy=hint) from None
        except ProxySettingError as exc:
            raise DialError("proxy_setting", f"{url}: {exc}") from None
        except OSError as exc:
            raise DialError(_word(exc), f"{url}: {exc.strerror or type(exc).__name__}") from None
        finally:
            self._close_unless_done()

    def _without_tls(self, exc: ssl.SSLError) -> DialError:
        url = self._url
        if "ALERT" in (exc.reason or "") and "CERTIFICATE" in exc.reason:  # under TLS 1.3 it comes after the handshake
            text = f"{url}: our certificate is not taken ({exc.reason})"
            return DialError("certificate", text, remedy="see tls.cert_file")
        if is_plain(exc):
            text = f"{url}: that port does not speak TLS"
            return DialError("tls", text, remedy="a hub without edge.tls is ws://")
        return DialError("tls", f"{url}: TLS handshake failed ({exc.reason or type(exc).__name__})")

    def proxy(self) -> Proxy | None:
        """What to go through. Raises ProxySettingError."""
        return choose(self._url, self._ground.config.http_proxy)

    async def _run(self, timeout: float) -> Link:
        net, host = self._ground.net, self.host
        context = await self._ground.trust.context() if self.secure else None
        proxy = self.proxy()
        if proxy is None:
            self.transport = await net.connect(host, self.port, self, timeout=timeout, share="hub", ssl=context)
        else:
            self.step = Step.PROXY
            outer = web_context() if proxy.tls else None
            self.transport = await net.connect(proxy.host, proxy.port, self, timeout=timeout, share="hub", ssl=outer)
            self._reply = ConnectReply()
            self.transport.write(connect_request(host, self.port, proxy.credentials))
            await self._next
            self._reply = None
            self._next = net.loop.create_future()
            self.step = Step.TLS
            if context is not None:
                self.transport = await aiofastnet.start_tls(
                    net.loop, self.transport, self, context, server_hostname=host, ssl_handshake_timeout=timeout
                )
        self.step = Step.UPGRADE
        self.transport.write(self.upgrade.request())
        return await self._next

    # asyncio

    def data_received(self, data: bytes) -> None:
        if self._next.done():
            return
        try:
            if self._reply is not None:
                if self._reply.feed(data) is not None:
                    self._next.set_result(None)
                return
            rest = self.upgrade.feed(data)
            if rest is not None:
                self._next.set_result(self._put_link(rest))
        except UpgradeRefused as exc:
            self._next.set_exception(self._refusal(exc))
        except (ProxyRefused, ProxyReplyError) as exc:
            self._next.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._next.done():
            self._next.set_exception(exc if isinstance(exc, ssl.SSLError) else ConnectionResetError())

    def _close_unless_done(self) -> None:
        if not self._done and self.transport is not None:
            self.transport.abort()
        if not self._next.done():
            self._next.cancel()

    # the handshake's answer

    def _refusal(self, exc: UpgradeRefused) -> DialError:
        if not exc.reason.startswith("http_"):
            return DialError(exc.reason, f"{self._url}: {exc}")
        after = "".join(exc.headers.get_all("Retry-After"))
        wait = (
            min(float(after), self._ground.config.reconnect.max_sec) if after.isdecimal() and len(after) < 10 else None
        )
        challenges = exc.headers.get_all("WWW-Authenticate")
        of_hub = any(one.startswith("Bearer") for one in challenges)  # as a hub's 401 has it
        why = description(challenges)
        words = {
            401: f"the hub refused the token{why and f': {why}'}"
            if of_hub
            else "somebody before the hub asks for credentials",
            403: "forbidden",
            404: "no tunnel there; the URL ends in /tunnel",
            429: "too many attempts",
            503: "the hub takes no agents at the moment",
        }
        return DialError(exc.reason, f"{self._url}: {words.get(exc.status, 'refused')} (HTTP {exc.status})", wait)

    def _put_link(self, rest: bytes) -> Link:
        ground = self._ground
        link, carrier = carry_websocket(
            ground,
            self.transport,
            self._handler,
            LinkBounds.of_tunnel(ground.config.tunnel),
            client=True,
            peer=self._url,
        )
        self._done = True
        self._handler.link = link  # before any frame can come
        ground.net.opened()
        if rest:
            ground.net.call_soon(carrier.feed, rest)
        return link
