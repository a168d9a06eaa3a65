"""A listener: clients come in here, one flow each."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

from ncfast.config import Listener as ListenerConfig
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.timeouts import Timeouts
from ncfast.net.proxyproto import Parser, ProxyProtocolError
from ncfast.net.seam import Acceptor, reset, tune
from ncfast.net.socket import SocketEnd
from ncfast.observe import log

if TYPE_CHECKING:
    from ncfast.core.messages import Open
    from ncfast.hub.hub import Hub
    from ncfast.hub.session import AgentSession
    from ncfast.mesh import Peer

_log = log.get("listener")

PROXY_HEADER_TIMEOUT = 3.0  # seconds for a complete PROXY header


class ClientInfo:
    """What the hub knows of a flow beside its bytes."""

    __slots__ = (
        "accepted_at",
        "agent_key",
        "client",
        "counted",
        "epoch",
        "hold_until",
        "hub",
        "instance",
        "listener",
        "opened",
        "owner",
        "peer",
        "refusals",
        "refused",
        "request",
        "resumes",
        "sends",
        "session",
        "sought_at",
        "source",
        "timeouts",
        "tried",
    )

    def __init__(self, hub: Hub, listener: ClientListener, source: str, client: str) -> None:
        self.hub = hub
        self.listener = listener
        self.source = source  # address alone, what caps count
        self.client = client  # host:port
        self.timeouts = listener.timeouts
        self.accepted_at = hub.net.clock()
        self.request: Open  # what M_OPEN says
        self.agent_key = ""
        self.instance = ""  # of the agent's process
        self.session: AgentSession | None = None  # the tunnel by which it goes, or
        self.peer: Peer | None = None  # the link to the owner
        self.owner = ""  # the replica that owns, or last owned, the agent
        self.epoch = 0  # the highest under which the flow was carried
        self.counted = False  # among the opens without an answer
        self.sends = 0  # of M_OPEN to this agent
        self.opened = False
        self.hold_until = 0.0  # the end of its time in the queue, if it ever came there
        self.resumes = 0
        self.sought_at = float("-inf")  # when we last asked an owner for it
        self.tried: set[str] = set()  # agents that were asked
        self.refusals = 0  # by hubs that did not own the agent
        self.refused: set[tuple[str, int]] = set()  # agent and epoch under which a hub did not own it

    @property
    def path(self) -> str:
        """Where the agent is, or last was: what logs and metrics call the flow's path."""
        return "local" if self.owner in ("", self.hub.replica_id) else "mesh"

    def flow_opened(self, flow: Flow[ClientInfo]) -> None:
        """M_OPEN_ACK has come."""
        self.hub.router.opened(flow)


class ClientListener:
    """One bound TCP port. Its settings may be replaced while it listens; open flows keep those they started with."""

    def __init__(self, hub: Hub, config: ListenerConfig) -> None:
        self.hub = hub
        self.active = 0
        self.per_source: Counter[str] = Counter()
        self._acceptor: Acceptor | None = None
        self.configure(config)

    def configure(self, config: ListenerConfig) -> None:
        """Takes new settings for new clients; the address stays."""
        flow = self.hub.config.flow
        self.config = config
        self.name = config.name
        self.key = (config.tenant, config.connector)
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
        self._acceptor = await self.hub.net.listen(
            self.config.bind,
            self._on_socket,
            backlog=self.config.backlog,
            reserve=self.hub.config.limits.fd_reserve,
            on_shed=self._shed,
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

    def _shed(self, reason: str, sock: socket.socket | None = None) -> None:
        self.hub.stats.accept_shed[reason] += 1
        _log.warning("client_shed", listener=self.name, reason=reason)
        if sock is not None:
            reset(sock)

    def _on_socket(self, sock: socket.socket, peer: Any) -> None:
        host = peer[0]
        config = self.config
        if config.proxy_protocol != "off" and _within(host, config.proxy_from):
            if self.active >= config.max_connections:
                return self._shed("listener_cap", sock)
            self.active += 1
            self.hub.net.opened()
            self.hub.net.adopt(sock, ProxyHeader(self, host, str(peer[1])))
            return None
        if self.active >= config.max_connections:
            return self._shed("listener_cap", sock)
        if (reason := self.refusal(host)) is not None:
            return self._shed(reason, sock)
        self.active += 1
        self.hub.net.opened()
        self._tune(sock)
        self.hub.net.adopt(
            sock,
            SocketEnd(
                self.hub.context,
                _Client(self, host, f"{host}:{peer[1]}"),
                self.hub.net.call_later,
                Reason.CLIENT_RESET,
                self.hub.net.retains,
            ),
        )
        return None

    def _tune(self, sock: socket.socket) -> None:
        try:
            tune(sock, user_timeout_sec=max(self.timeouts.stall, 10.0))
        except OSError:
            pass  # gone already; the first read will tell

    def refusal(self, source: str) -> str | None:
        """Why a client from `source` may not come in now, or None. Behind a balancer `source` is whom its header
        names."""
        config, hub = self.config, self.hub
        if (config.deny and _within(source, config.deny)) or (config.allow and not _within(source, config.allow)):
            return "acl"
        if config.max_connections_per_source and self.per_source[source] >= config.max_connections_per_source:
            return "source_cap"
        if len(hub.flows) >= hub.config.limits.max_flows:
            return "flow_cap"
        if hub.context.over_budget:
            return "memory"
        if not hub.open_throttle.admit(source):
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
        self._watch = self._listener.hub.net.watch(end.transport, end.broken)
        self._listener.hub.router.client_ready(
            end, ClientInfo(self._listener.hub, self._listener, self._source, self._client)
        )

    def socket_gone(self, end: SocketEnd) -> None:
        listener = self._listener
        listener.active -= 1
        listener.hub.net.unwatch(self._watch)
        listener.hub.net.gone()
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
        self._timer = self._listener.hub.net.call_later(PROXY_HEADER_TIMEOUT, self._refuse, "proxy_header_timeout")

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
        end = SocketEnd(
            listener.hub.context,
            _Client(listener, str(host), f"{host}:{port}"),
            listener.hub.net.call_later,
            Reason.CLIENT_RESET,
            listener.hub.net.retains,
        )
        listener._tune(self._transport.get_extra_info("socket"))
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
            self._listener.hub.net.gone()

    def _refuse(self, reason: str) -> None:
        self._listener._shed(reason)
        self._transport.abort()
