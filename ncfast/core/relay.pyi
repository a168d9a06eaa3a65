"""A flow that a hub passes on, between its agent's tunnel and the link to the hub where its client is."""

from typing import Any, Generic, Protocol, TypeVar

from ncfast.core.ends import Path, Source
from ncfast.core.link import Link

class _Info(Protocol):
    def relay_opened(self, relay: Relay[Any], /) -> None:
        """M_OPEN_ACK has passed."""

    def relay_ended(self, relay: Relay[Any], /) -> None:
        """The flow is over, or its tunnel is; told once."""

_InfoT = TypeVar("_InfoT", bound=_Info)

class Lane(Source):
    """One direction."""

    cid: bytes
    epoch: int
    relay: Relay[Any] | None  # None when the flow is over
    out: Path | None

    @property
    def waiting(self) -> int:
        """Frames that wait for `out`."""

class Relay(Generic[_InfoT]):
    """The flow `cid` of the agent whose tunnel here has `epoch`; `info` is the hub's."""

    cid: bytes
    epoch: int
    info: _InfoT
    up: Lane  # from the agent
    down: Lane  # to the agent

    def __init__(self, cid: bytes, epoch: int, tunnel: Path, info: _InfoT) -> None: ...
    @property
    def tunnel(self) -> Link: ...
    @property
    def mesh(self) -> Link | None:
        """The link to the client's hub, None while it is away."""

    def connect(self, mesh: Path) -> None:
        """Puts the flow on a link to its client's hub."""

    def disconnect(self) -> None:
        """The link to the client's hub is gone, or another takes its place; what waited for it goes with it."""

    def forget(self) -> None:
        """Frames of this cid are nobody's from now on; those that wait are still sent."""
