"""What both ends of a link share about the connection that carries it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from websockets.protocol import Protocol as WebSocket
from websockets.protocol import Side

from ncfast.config.sections import Tunnel
from ncfast.core.context import FlowContext
from ncfast.core.link import Link
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.raw import RawCarrier
from ncfast.net.seam import Net, tune_link
from ncfast.net.websocket import WebSocketCarrier

if TYPE_CHECKING:
    from ncfast.config.ha import Mesh
    from ncfast.core.link import _Handler

QUIET = logging.getLogger("ncfast.websockets")  # what we have to say of a handshake, we say in our own log
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False
QUIET.setLevel(logging.CRITICAL)


class Process(Interface):
    """A hub or an agent, as far as its links know it."""

    net: Net
    context: FlowContext
    receive_buffer: ReceiveBuffer


@dataclass(frozen=True, slots=True)
class LinkBounds:
    """What a link may hold; tunnel and mesh have each a section in the file."""

    max_inflight_bytes: int
    queue_depth: int  # frames
    user_timeout_sec: float  # bytes unacknowledged by the peer's kernel for so long end the connection
    notsent_lowat: int  # bytes
    max_message_bytes: int  # of a WebSocket message received
    between_hubs: bool = False  # it carries many agents' flows, and none of them may end it

    @classmethod
    def of_tunnel(cls, tunnel: Tunnel) -> LinkBounds:
        return cls(
            tunnel.per_link_max_inflight_bytes,
            tunnel.send_queue_depth,
            tunnel.ping_timeout_sec,
            tunnel.notsent_lowat,
            tunnel.max_message_bytes,
        )

    @classmethod
    def of_mesh(cls, mesh: Mesh, tunnel: Tunnel) -> LinkBounds:
        return cls(
            mesh.per_link_max_inflight_bytes,
            mesh.send_queue_depth,
            mesh.ping_timeout_sec,
            tunnel.notsent_lowat,
            tunnel.max_message_bytes,
            between_hubs=True,
        )


class _Attended:
    """A carrier whose connection is counted and watched."""

    transport: Any
    broken: Callable[[], None]

    def attend(self, net: Net) -> None:
        """Call when the connection is the carrier's."""
        self.net = net
        self.watch = net.watch(self.transport, self.broken)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)  # type: ignore[misc]
        self.net.unwatch(self.watch)
        self.net.gone()


class TunnelCarrier(_Attended, WebSocketCarrier):
    """WebSocket messages."""

    _held = False

    def hold(self) -> None:
        """Looks at nothing that comes, until `go_on`: it waits in the kernel."""
        self._held = True
        self.transport.pause_reading()

    def go_on(self) -> None:
        self._held = False
        self._read_on()

    def _read_on(self) -> None:
        if not self._held:
            super()._read_on()  # type: ignore[misc]


class StreamCarrier(_Attended, RawCarrier):
    """The bare byte stream."""


def carry_websocket(
    process: Process, transport: Any, handler: _Handler, bounds: LinkBounds, *, client: bool, peer: str
) -> tuple[Link, TunnelCarrier]:
    """Puts a link for `handler` on a connection whose WebSocket handshake is done. The connection is counted
    already."""
    carrier = TunnelCarrier(
        WebSocket(Side.CLIENT if client else Side.SERVER, logger=QUIET),
        transport,
        process.net.call_later,
        process.receive_buffer,
        client=client,
        max_message=bounds.max_message_bytes,
        entropy=process.net.entropy,
    )
    return _carry(process, carrier, handler, bounds, peer), carrier


def carry_stream(
    process: Process, transport: Any, handler: _Handler, bounds: LinkBounds, *, peer: str
) -> tuple[Link, StreamCarrier]:
    """The same on the bare stream."""
    carrier = StreamCarrier(transport, process.net.call_later, process.receive_buffer)
    return _carry(process, carrier, handler, bounds, peer), carrier


def _carry(process: Process, carrier: Any, handler: _Handler, bounds: LinkBounds, peer: str) -> Link:
    net, transport = process.net, carrier.transport
    link = Link(
        handler,
        carrier,
        process.context,
        net.call_soon,
        net.call_later,
        max_inflight=bounds.max_inflight_bytes,
        queue_depth=bounds.queue_depth,
        between_hubs=bounds.between_hubs,
        peer=peer,
    )
    sock = transport.get_extra_info("socket")
    if sock is not None:
        tune_link(sock, user_timeout_sec=bounds.user_timeout_sec, notsent_lowat=bounds.notsent_lowat)
    carrier.start(link)
    carrier.attend(net)
    transport.set_protocol(carrier)
    return link
