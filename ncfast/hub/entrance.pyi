"""Clients that come in at a listener."""

from collections.abc import Callable
from typing import Any

from ncfast.config.hub import Listener
from ncfast.core.budget import Share
from ncfast.core.timeouts import Timeouts
from ncfast.hub.client import ClientInfo, Key
from ncfast.hub.ground import Ground
from ncfast.hub.listener import ClientListener
from ncfast.hub.networks import Networks
from ncfast.net.seam import Net
from ncfast.net.socket import SocketEnd
from ncfast.net.syscalls import Accepted
from ncfast.net.throttle import Throttle
from ncfast.observe.stats import ListenerStats

class Entrance:
    """Open flows keep the settings that they came in with."""

    ground: Ground
    net: Net
    _opens: Throttle  # bounds the clients of each source address
    on_client: Callable[[SocketEnd, ClientInfo], None]
    counts: ListenerStats
    share: Share
    active: int
    per_source: dict[str, int]  # clients by source
    own: tuple[str, int] | None  # where all clients come in, if that is one address
    config: Listener
    timeouts: Timeouts
    names: tuple[str, Key]
    _allow: Networks | None
    _deny: Networks | None
    _balancers: Networks
    _headers: bool  # balancers bring a PROXY header
    _defers: bool  # nothing is opened before a client speaks
    _most: int
    _most_per_source: int

    def __init__(
        self,
        ground: Ground,
        opens: Throttle,
        on_client: Callable[[SocketEnd, ClientInfo], None],
        share: Share,
        counts: ListenerStats,
    ) -> None: ...
    def _on_socket(self, sock: Accepted, peer: Any) -> None:
        """A connection was accepted."""

    def _enters(self) -> None: ...
    def client(self, host: str, port: int) -> Any:
        """What a client that is let in is at first."""

    def refusal(self, host: str) -> str | None:
        """Why a client from `host` may not come in now, or None. Behind a balancer `host` is whom its header names."""

    def no_room(self, source: str) -> str | None:
        """Why there can be no flow for `source` now, or None."""

    def shed(self, reason: str, sock: Accepted | None = None) -> None:
        """A client may not come in."""

    def _header_of(self, host: str, port: int) -> Any:
        """What a balancer's connection is, until its PROXY header is complete."""

    def _silent(self, place: Place) -> Any:
        """What a client is that has to speak first."""

class Place:
    """A client's at its listener; owner of its socket. The settings are those with which the client came."""

    listener: ClientListener
    config: Listener
    timeouts: Timeouts
    names: tuple[str, Key]
    host: str
    port: int
    source: str  # what limits by source count it as

    def __init__(self, listener: Entrance, host: str, port: int) -> None: ...
    def end(self) -> SocketEnd:
        """The socket end of its flow."""

    def socket_ready(self, end: SocketEnd) -> None: ...
    def socket_gone(self, end: SocketEnd) -> None: ...
    def leave(self) -> None:
        """It is free."""
