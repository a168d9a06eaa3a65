"""One end of a flow: its opening, its paths, its end and its timers, on the two halves that move its bytes."""

from typing import Any, Generic, Protocol, TypeVar, overload

from ncfast.core.budget import Share
from ncfast.core.context import FlowContext
from ncfast.core.ends import Path, Sink
from ncfast.core.errors import Reason
from ncfast.core.sending import Sender

class _Timeouts(Protocol):
    """Seconds."""

    @property
    def open(self) -> float: ...
    @property
    def grace(self) -> float: ...
    @property
    def half_close(self) -> float: ...
    @property
    def stall(self) -> float: ...
    @property
    def idle(self) -> float: ...
    @property
    def first_byte(self) -> float: ...

class _Opener(Protocol):
    """The hub's `info`."""

    def flow_opened(self, flow: Flow[Any], /) -> None:
        """M_OPEN_ACK has come."""

_InfoT = TypeVar("_InfoT")
_OpenerT = TypeVar("_OpenerT", bound=_Opener)

class Flow(Sender, Generic[_InfoT]):
    """One end of one client connection; the hub's end has an `open_body`, the agent's the `limit` of the M_OPEN it came
    from."""

    secret: bytes
    sought: bytes | None
    info: _InfoT  # what the process knows of the flow beside its bytes
    detached_at: float  # -1: on a path, or never was

    @overload
    def __init__(
        self: Flow[_OpenerT],
        ctx: FlowContext,
        cid: bytes,
        secret: bytes,
        open_body: bytes,
        info: _OpenerT,
        *,
        share: Share | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        ctx: FlowContext,
        cid: bytes,
        secret: bytes,
        open_body: None,
        info: _InfoT,
        limit: int,
        share: Share | None = None,
    ) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def opening(self) -> bool: ...
    @property
    def open_waits(self) -> bool:
        """Hub: whether M_OPEN has not left by this path yet."""
    @property
    def attached(self) -> bool: ...
    @property
    def resting(self) -> bool:
        """Whether nothing of it is under way, and nothing has been for a round of timers."""
    def bind(self, sink: Sink) -> None:
        """Puts the flow under its socket."""

    def accept(self) -> None:
        """Agent: the target is connected and the socket bound; what came early goes to it."""

    def attach(self, path: Path, *, resumed: bool, epoch: int = 0, credit: int = 0) -> None:
        """Puts the flow on a path; with `resumed` data may follow at once."""

    def resume(self, path: Path, ack: int, limit: int, answer: bool, epoch: int = 0) -> None:
        """The peer has asked to go on from `ack` (`answer`), or has answered our own asking."""

    def detach(self) -> None:
        """The path is gone; the flow waits for another."""

    def direct(self, body: bytes, sought: bytes | None = None) -> None:
        """Hub: what M_OPEN says from now on, and M_RESUME behind the secret."""

    def reopen(self) -> None:
        """Hub: forget the path that refused the open; everything is sent again on the next one."""

    def reset(self, code: int, *, behind: bool = False) -> None:
        """Ends the flow now; the peer is told `code`, the socket is reset."""

    def cut(self, code: int) -> None:
        """As `reset`, but nothing is brought to its end before: what the flow holds is free when this returns."""

    def check(self, now: float, timeouts: _Timeouts) -> Reason | None:
        """Which timer has run out. STALLED is the path's fault, not the flow's."""
