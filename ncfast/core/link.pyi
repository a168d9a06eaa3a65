"""A link: many flows over one carrier, framed. Sans-I/O."""

from collections.abc import Callable
from typing import Any, Protocol

from ncfast.core.context import FlowContext
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.queues import Carrier, Queues
from ncfast.core.relay import Lane

class _Handler(Protocol):
    """What has to be said of frames that concern no flow on the link yet, and of the link itself."""

    def _on_frame__hello(self, payload: bytes, /) -> None: ...
    def _on_frame__hello_ack(self, payload: bytes, /) -> None: ...
    def _on_frame__open(self, cid: bytes, epoch: int, limit: int, payload: bytes, /) -> None: ...
    def _on_frame__resume(self, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int, /) -> bool: ...
    def _on_frame__goaway(self, reason: Reason, /) -> None: ...
    def _on_frame__auth(self, code: int, payload: bytes, /) -> None: ...
    def _on_frame__announce(self, payload: bytes, /) -> None: ...
    def _on_frame__move(self, payload: bytes, /) -> None: ...
    def _on_frame__lost(self, cid: bytes, newest: int, /) -> None:
        """M_DETACH or M_GAP of a flow that is here; `newest`: the epoch of M_DETACH with `stale_epoch`, otherwise 0."""
    def foreign(self, cid: bytes, /) -> bool: ...
    def link_rtt(self, link: Link, seconds: float, /) -> None: ...
    def link_ended(self, link: Link, reason: Reason, detail: str, /) -> None: ...

class Link(Queues):
    """What comes in, keepalive and flood control of one carrier. `handler` gets the frames that concern no flow yet."""

    handler: _Handler
    peer: str
    bytes_in: int
    stale_epoch: int
    work: int
    between_hubs: bool

    def __init__(
        self,
        handler: _Handler,
        carrier: Carrier,
        ctx: FlowContext,
        call_soon: Callable[..., Any],
        call_later: Callable[..., Any],
        *,
        max_inflight: int,
        queue_depth: int,
        between_hubs: bool = False,
        peer: str = "",
    ) -> None: ...
    def establish(self, epoch: int) -> None:
        """Every frame of a flow carries `epoch` from now on, and must."""

    def send(self, type: int, payload: bytes = b"", *, code: int = 0, seq: int = 0) -> None:
        """A frame of the link itself. Raises ValueError for no frame type."""

    @property
    def far_rtt(self) -> float:
        """Seconds of round trip beyond the link, as the M_RESUME says that the handler is being told of."""

    def resumed_late(self, flow: Flow[Any], far_rtt: float) -> None:
        """The flow is on this link by an M_RESUME that the handler has kept for a while."""

    @property
    def load(self) -> int:
        """Flows on this link, relayed ones included."""

    def refuse(self, cid: bytes, code: int, epoch: int = 0) -> None:
        """Answers an open or resume that cannot be; `epoch` is the frame's, 0 the link's."""

    def tell_detached(self, cid: bytes, epoch: int, code: int, newest: int = 0) -> None:
        """Tells an end of a flow that the way beyond this hub is lost."""

    def forward(self, lane: Lane, type: int, payload: bytes, *, ack: int = 0, limit: int = 0, rtt: float = 0.0) -> bool:
        """Sends on M_OPEN or M_RESUME, which came in by another link with a round trip of `rtt` seconds. False: it was
        dropped."""

    def noise(self, weight: int) -> None:
        """Counts something of the peer's that moved nothing."""

    def counters(self) -> tuple[dict[str, int], dict[str, int]]:
        """(frames in, frames out) by frame type name."""

    def ping(self) -> None:
        """Sends a PING unless one is unanswered."""

    def tick(self, now: float, interval: float, timeout: float, stall: float, echo: float = 0.0) -> None:
        """Keepalive and flood control; call each half second."""

    def fail(self, reason: Reason, detail: str = "") -> None:
        """Ends the link once: the carrier tells the peer, every flow detaches, the handler is told."""

    def lost(self, reason: Reason, detail: str = "") -> None:
        """The carrier is gone already."""
