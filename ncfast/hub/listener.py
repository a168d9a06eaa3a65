"""A listener: clients come in here, one flow each."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from ncfast.config import Listener as ListenerConfig
from ncfast.core.errors import Reason
from ncfast.core.timeouts import Timeouts
from ncfast.hub.client import ClientInfo
from ncfast.hub.ground import Ground
from ncfast.net.newcomers import source_of
from ncfast.net.proxyproto import Parser, ProxyProtocolError
from ncfast.net.seam import Acceptor, reset, tune
from ncfast.net.socket import SocketEnd
from ncfast.net.throttle import Throttle
from ncfast.observe import log

_log = log.get("listener")

PROXY_HEADER_TIMEOUT = 3.0  # seconds for a complete PROXY header


class ClientListener:
    """One bound TCP port. Its settings may be replaced while it listens; open flows keep those they started with."""

    def __init__(
        self,
        ground: Ground,
        config: ListenerConfig,
        opens: Throttle,
        on_client: Callable[[SocketEnd, ClientInfo], None],
    ) -> None:
        """`opens` bounds the clients of each source address over all listeners; `on_client` gets each that is let
        in."""
        self._ground = ground
        self.net = ground.net
        self._opens = opens
        self._on_client = on_client
        self.active = 0
        self.per_source: Counter[str] = Counter()
        self._acceptor: Acceptor | None = None
        self.configure(config)

    def configure(self, config: ListenerConfig) -> None:
        """Takes new settings for new clients; the address stays."""
        flow = self._ground.config.flow
        self.config = config
        self.name = config.name
        self.timeouts = Timeouts(
            open=flow.open_timeout_sec,
            grace=flow.grace_sec,
            half_close=flow.half_close_sec,
            stall=flow.stall_sec,
            idle=config.idle_timeout_sec,
            first_byte=config.first_byte_timeout_sec,
        )

    async def open(self) -> None:
        """Binds the port. Raises OSError."""
        self._acceptor = await self.net.listen(
            self.config.bind,
            self._on_socket,
            backlog=self.config.backlog,
            reserve=self._ground.config.limits.fd_reserve,
            on_shed=self.shed,
        )

    def close(self) -> None:
        """Stops accepting; open flows live on."""
        if self._acceptor is not None:
            self._acceptor.close()

    @property
    def address(self) -> str:
        return self._acceptor.address if self._acceptor is not None else str(self.config.bind)

    @property
    def bound(self) -> bool:
        return self._acceptor is not None and not self._acceptor.closed

    @property
    def accepting(self) -> bool:
        return self.bound and not self.out_of_descriptors

    @property
    def out_of_descriptors(self) -> bool:
        return self._acceptor is not None and self._acceptor.paused

    # accepting

    def shed(self, reason: str, sock: socket.socket | None = None) -> None:
        self._ground.stats.accept_shed[reason] += 1
        _log.warning("client_shed", listener=self.name, reason=reason)
        if sock is not None:
            reset(sock)

    def _on_socket(self, sock: socket.socket, peer: Any) -> None:
        host = peer[0]
        config = self.config
        if config.proxy_protocol != "off" and _within(host, config.proxy_from):
            if self.active >= config.max_connections:
                return self.shed("listener_cap", sock)
            self.active += 1
            self.net.opened()
            self.net.adopt(sock, ProxyHeader(self, host, str(peer[1])))
            return None
        if self.active >= config.max_connections:
            return self.shed("listener_cap", sock)
        if (reason := self.refusal(host)) is not None:
            return self.shed(reason, sock)
        self.active += 1
        self.net.opened()
        self.net.adopt(sock, self.end(sock, host, f"{host}:{peer[1]}"))
        return None

    def end(self, sock: socket.socket, host: str, client: str) -> SocketEnd:
        """The socket end of a client that is let in."""
        try:
            tune(sock)
        except OSError:
            pass  # gone already; the first read will tell
        owner = _Client(self, source_of(host), client)
        return SocketEnd(self._ground.context, owner, self.net.call_later, Reason.CLIENT_RESET, Reason.CLIENT_LOST)

    def client_ready(self, end: SocketEnd, client: str) -> None:
        """Its transport is there."""
        self._on_client(end, ClientInfo(self.config, self.timeouts, client, self._ground.clock()))

    def refusal(self, host: str) -> str | None:
        """Why a client from `host` may not come in now, or None. Behind a balancer `host` is whom its header names."""
        config, ground = self.config, self._ground
        if (config.deny and _within(host, config.deny)) or (config.allow and not _within(host, config.allow)):
            return "acl"
        source = source_of(host)
        if config.max_connections_per_source and self.per_source[source] >= config.max_connections_per_source:
            return "source_cap"
        if len(ground.flows) >= ground.config.limits.max_flows:
            return "flow_cap"
        if ground.context.over_budget:
            return "memory"
        if not self._opens.admit(source):
            return "rate"
        return None


def _within(host: str, networks: list[Any]) -> bool:
    """Whether the address is in one of the networks; an IPv4 address in IPv6 clothes counts as IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in networks)


class _Client:
    """Owner of one client's socket."""

    __slots__ = ("_client", "_listener", "_source", "_watch")

    def __init__(self, listener: ClientListener, source: str, client: str) -> None:
        self._listener = listener
        self._source = source
        self._client = client
        self._watch = -1
        listener.per_source[source] += 1

    def socket_ready(self, end: SocketEnd) -> None:
        self._watch = self._listener.net.watch(end.transport, end.broken)
        self._listener.client_ready(end, self._client)

    def socket_gone(self, end: SocketEnd) -> None:
        listener = self._listener
        listener.active -= 1
        listener.net.unwatch(self._watch)
        listener.net.gone()
        listener.per_source[self._source] -= 1
        if not listener.per_source[self._source]:
            del listener.per_source[self._source]


class ProxyHeader(asyncio.Protocol):
    """A trusted source's connection until its PROXY header is complete; then the client it names takes the socket over.

    The source decides whether a header is expected, never the content (PROXY protocol specification, section 2).
    """

    def __init__(self, listener: ClientListener, host: str, port: str) -> None:
        self._listener = listener
        self._peer = (host, port)
        version = listener.config.proxy_protocol
        assert version != "off"
        self._parser = Parser(version)
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self._handed_over = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._timer = self._listener.net.call_later(PROXY_HEADER_TIMEOUT, self._refuse, "proxy_header_timeout")

    def data_received(self, data: bytes) -> None:
        try:
            result = self._parser.feed(data)
        except ProxyProtocolError:
            self._refuse("proxy_header")
            return
        if result is None:
            return
        host, port = (result.source if result.source is not None else self._peer)[:2]
        listener = self._listener
        if (reason := listener.refusal(str(host))) is not None:
            self._refuse(reason)
            return
        self._timer.cancel()  # type: ignore[union-attr]
        self._handed_over = True
        end = listener.end(self._transport.get_extra_info("socket"), str(host), f"{host}:{port}")
        self._transport.set_protocol(end)
        end.connection_made(self._transport)
        if result.rest:
            end.feed(result.rest)

    def eof_received(self) -> bool:
        self._refuse("proxy_header")
        return False

    def handshake_failed(self, exc: Exception) -> None:
        """The transport could not be made."""
        self.connection_lost(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._handed_over:
            self._listener.active -= 1
            self._listener.net.gone()

    def _refuse(self, reason: str) -> None:
        self._listener.shed(reason)
        self._transport.abort()
