"""A listener: clients come in here, one flow each.

What a connection is on its way to a flow: first, from a trusted balancer, a `ProxyHeader`; then a `FirstByte`, if it is
the balancer's own check, or if the listener opens nothing before a client speaks; then the socket end of a flow.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from ncfast.config.hub import Listener as ListenerConfig
from ncfast.core.timeouts import Timeouts
from ncfast.hub.client import ClientFlow, ClientInfo, names_of
from ncfast.hub.entrance import Entrance, Place
from ncfast.hub.ground import Ground
from ncfast.hub.networks import Networks
from ncfast.net.acceptor import Acceptor
from ncfast.net.ports import wanted_by
from ncfast.net.proxyproto import Parser, ProxyProtocolError
from ncfast.net.seam import reset, tune_end
from ncfast.net.socket import SocketEnd, SocketState
from ncfast.net.syscalls import Accepted
from ncfast.net.throttle import Throttle
from ncfast.observe import log

_log = log.get("listener")

PROXY_HEADER_TIMEOUT = 3.0  # seconds for a complete PROXY header


class ClientListener(Entrance):
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
        share, counts = ground.context.budget.share(config.weight), ground.stats.listener(config.name)
        super().__init__(ground, opens, on_client, share, counts)
        self.waiting: set[FirstByte] = set()
        self.heading: set[ProxyHeader] = set()  # whose header is not complete
        self._acceptor: Acceptor | None = None
        self.configure(config)

    def configure(self, config: ListenerConfig) -> None:
        """Takes new settings for new clients; the address stays."""
        flow = self.ground.config.flow
        self.config = config
        self.name = config.name
        self._allow = Networks(config.allow) if config.allow else None
        self._deny = Networks(config.deny) if config.deny else None
        self._balancers = Networks(config.proxy_from)
        self.names = names_of(config)
        self._headers = config.proxy_protocol != "off"
        self._most = config.max_connections
        self._most_per_source = config.max_connections_per_source
        self._defers = config.open_on == "first_byte"
        self.share.weigh(config.weight)
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
        with wanted_by(f"listeners.{self.name}.bind"):
            self._acceptor = await self.net.listen(
                self.config.bind,
                self._on_socket,
                backlog=self.config.backlog,
                reserve=self.ground.config.limits.fd_reserve,
                on_shed=self.shed,
                behind=self.ground.context.uncork,
                tune=lambda sock: tune_end(sock, self.ground.config.flow.notsent_lowat),
                bare=True,
                use=f"listeners.{self.name}",
            )
        self.own = self._acceptor.own

    def close(self) -> None:
        """Stops accepting; open flows live on, on memory that all may borrow, and those who are silent may still become
        some."""
        if self._acceptor is not None:
            self._acceptor.close()
        self.share.weigh(0)

    def hold(self) -> None:
        """Stops accepting for a while: who connects waits in the kernel's queue."""
        if self._acceptor is not None:
            self._acceptor.hold()

    def go_on(self) -> None:
        """Accepts again."""
        if self._acceptor is not None:
            self._acceptor.go_on()

    def turn_away(self, reason: str) -> None:
        """Resets those for whom nothing is open yet."""
        for one in list(self.waiting):
            one.refuse(reason)

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

    def shed(self, reason: str, sock: Accepted | None = None) -> None:
        self.counts.shed[reason] += 1
        _log.warning("client_shed", listener=self.name, reason=reason)
        if sock is not None:
            reset(sock)

    # clients of another process of this hub

    def adopt(self, state: SocketState, flow: ClientFlow) -> None:
        """Puts a flow under the socket that it had there."""
        self._enters()
        host, port, _, _ = flow.info.ends
        client = flow.info.place = Place(self, host, port)
        end = client.end()
        end.inherit(flow, state)
        self.net.adopt_end(state.sock, end)

    def put(self, head: dict[str, Any], sock: socket.socket | Accepted) -> None:
        """Goes on with a client that has no flow yet, as its `detach` has it. Raises KeyError, ValueError or
        TypeError for what is none."""
        if head["kind"] == "header" and not self._headers:
            raise ValueError("no client of this listener brings a header any more")
        (host, port), due, read = head["client"], head["due"], head["read"].encode("latin-1")
        said = None if head["kind"] == "header" else head["as"]
        one = ProxyHeader(self, host, port, due) if said is None else FirstByte(Place(self, host, port), said, due)
        self._enters()
        self.net.adopt_end(sock, one)
        if read:
            one.data_received(read)

    def _header_of(self, host: str, port: int) -> ProxyHeader:
        return ProxyHeader(self, host, port)

    def _silent(self, place: Place) -> FirstByte:
        return FirstByte(place, "silent")

    def check(self, host: str, port: int) -> FirstByte:
        """A balancer's own: answered even where nobody is let in, for who may come says nothing about our health."""
        return FirstByte(Place(self, host, port), "proxy_local")


def _hand_over(transport: Any, protocol: SocketEnd | FirstByte, data: bytes) -> None:
    """The connection is `protocol`'s from here on, and so are bytes of it that were read already."""
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if data:
        protocol.feed(data)


class FirstByte(asyncio.Protocol):
    """A connection that has said nothing, and for which nothing is open. Its first byte makes it a client like any
    other; if it ends before, in whatever way, it was a probe. Bounded by the time in which a client has to speak."""

    def __init__(self, client: Place, kind: str, due: float | None = None) -> None:
        """`kind` is what a probe is counted as; `due` is when its time is over, if that is known."""
        self._client = client
        self._kind = kind
        self._due = due
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self._settled = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        client = self._client
        client.listener.waiting.add(self)
        now = client.listener.ground.clock()
        if self._due is None and (seconds := client.timeouts.first_byte or client.timeouts.idle):
            self._due = now + seconds
        if self._due is not None:
            self._timer = client.listener.net.call_later(max(0.0, self._due - now), self.refuse, "first_byte_timeout")

    def feed(self, data: bytes) -> None:
        client = self._client
        if (reason := client.listener.no_room(client.source)) is not None:
            self.refuse(reason)
            return
        self._settle()
        _hand_over(self._transport, client.end(), data)

    data_received = feed

    def eof_received(self) -> bool:
        return False  # it is closed in order

    def handshake_failed(self, exc: Exception) -> None:
        """The transport could not be made."""
        self.connection_lost(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._settled:
            self._client.listener.ground.stats.probes[self._kind] += 1
            self._settle()
        self._client.leave()

    def detach(self) -> tuple[dict[str, Any], socket.socket] | None:
        """Gives the client up, for another process of this hub: how far it has come, and its socket. None if it is
        gone."""
        given = self._transport.detach()
        if given is None:
            return None
        client = self._client
        self._settle()
        client.leave()
        head = {"kind": "first", "client": [client.host, client.port], "as": self._kind, "due": self._due, "read": ""}
        return {**head, "listener": client.config}, given[0]

    def refuse(self, reason: str) -> None:
        """Resets it."""
        self._settle()
        self._client.listener.shed(reason)
        self._transport.abort()

    def _settle(self) -> None:
        """It is known what becomes of it."""
        self._settled = True
        self._client.listener.waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()


class ProxyHeader(asyncio.Protocol):
    """A trusted source's connection until its PROXY header is complete; then the client it names takes the socket over.

    The source decides whether a header is expected, never the content (PROXY protocol specification, section 2).
    """

    def __init__(self, listener: ClientListener, host: str, port: int, due: float | None = None) -> None:
        """`due` is when its time is over, if that is known."""
        self._listener = listener
        self._peer = (host, port)
        self._due = due if due is not None else listener.ground.clock() + PROXY_HEADER_TIMEOUT
        version = listener.config.proxy_protocol
        assert version != "off"
        self._parser = Parser(version)
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self._handed_over = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        listener = self._listener
        listener.heading.add(self)
        left = max(0.0, self._due - listener.ground.clock())
        self._timer = listener.net.call_later(left, self._refuse, "proxy_header_timeout")

    def data_received(self, data: bytes) -> None:
        try:
            result = self._parser.feed(data)
        except ProxyProtocolError:
            self._refuse("proxy_header")
            return
        if result is None:
            return
        host, port = result.source if result.source is not None else self._peer
        listener = self._listener
        if not result.local and (reason := listener.refusal(host)) is not None:
            self._refuse(reason)
            return
        self._settle()
        self._handed_over = True
        protocol = listener.check(host, port) if result.local else listener.client(host, port)
        _hand_over(self._transport, protocol, result.rest)

    def eof_received(self) -> bool:
        self._refuse("proxy_header")
        return False

    def handshake_failed(self, exc: Exception) -> None:
        """The transport could not be made."""
        self.connection_lost(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._handed_over:
            self._settle()
            self._gone()

    def detach(self) -> tuple[dict[str, Any], socket.socket] | None:
        """As `FirstByte.detach`."""
        given = self._transport.detach()
        if given is None:
            return None
        self._settle()
        self._gone()
        head = {"kind": "header", "client": self._peer, "due": self._due, "read": self._parser.read.decode("latin-1")}
        return {**head, "listener": self._listener.config}, given[0]

    def _settle(self) -> None:
        self._listener.heading.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def _gone(self) -> None:
        self._listener.active -= 1
        self._listener.net.gone()

    def _refuse(self, reason: str) -> None:
        """Resets it: behind a balancer, too, an end in order would look like an empty answer."""
        self._listener.shed(reason)
        self._transport.abort()
