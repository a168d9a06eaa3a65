"""One end of a flow: sequence, acknowledgement, windows, resume. Sans-I/O."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, overload

from ncfast._frames import DedupRing, SegmentPool
from ncfast.core.budget import Budget, Share
from ncfast.core.errors import Reason

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

class _Owner(Protocol):
    """The process: hub or agent."""

    def flow_closed(self, flow: Flow[Any], reason: Reason, /) -> None:
        """Once for each flow."""

    def flow_resumed(self, flow: Flow[Any], /) -> None:
        """It goes on, by another way or after its own was lost."""

    def flow_refused(self, flow: Flow[Any], reason: Reason, /) -> bool:
        """Whether an open that the target never saw goes to another agent."""

class _Opener(Protocol):
    """The hub's `info`."""

    def flow_opened(self, flow: Flow[Any], /) -> None:
        """M_OPEN_ACK has come."""

_InfoT = TypeVar("_InfoT")
_OpenerT = TypeVar("_OpenerT", bound=_Opener)

class FlowContext:
    """What all flows of a process share: memory, budget, counters, their owner."""

    pool: SegmentPool
    closed: DedupRing
    clock: Callable[[], float]
    flows: dict[bytes, Flow[Any]]  # all that live
    passed: set[bytes]  # cids of flows that another process may have by now: what comes is passed over
    owner: _Owner
    stray_reset: Callable[[Path, bytes, int], None] | None  # M_RST for a flow that is not here, and may be yet to come
    budget: Budget
    share: Share  # of what is relayed, and of flows that have no other
    window_initial: int
    window_max: int
    reader_pause: float  # seconds that a socket for which bytes wait may take none; 0: for ever
    promise: int  # credit that a flow's far end has before this one knows the flow: HELLO says it
    backlog: int  # bytes that wait for slow sockets
    relayed: int  # bytes of relayed frames that wait for a link
    windows: int  # sum of the windows of all flows that live
    live: int  # how many they are
    duplicates: int
    gaps: int
    bytes_read: int  # from sockets; = bytes_out + discarded + what is held for replay
    bytes_in: int  # written to sockets
    bytes_out: int  # acknowledged by peers
    discarded: int

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        budget: int = ...,
        window_initial: int = 262144,
        window_max: int = 16777216,
        ring: int = 16384,
        seed: int = 0,
    ) -> None: ...
    def due(self, now: float) -> list[Flow[Any]]:
        """The flows that a round of timers at `now` has to look at: call `check` of each."""

    def cork(self) -> None:
        """A batch of clients comes in: what their flows have to say at once leaves with `uncork`, in one write."""

    def uncork(self) -> None:
        """After `cork`."""

    @property
    def held(self) -> int:
        """Bytes of memory held for replay, for slow sockets and for relays."""

class Sink:
    """The socket above a flow; for Cython only."""

class Path:
    """The link below a flow; for Cython only."""

    epoch: int  # 0: each flow has its own
    lanes: dict[bytes, Any]  # relayed flows that come in here
    rtt: float  # seconds
    inflight: int
    max_inflight: int
    peer_window: int  # credit that the peer gives each new flow

class Source:
    """What takes its turns on a link."""

    unsent_bytes: int

class Flow(Source, Generic[_InfoT]):
    """One end of one client connection; the hub's end has an `open_body`, the agent's the `limit` of the M_OPEN it came
    from."""

    cid: bytes
    secret: bytes
    open_body: bytes | None  # empty when it is not sent again
    state: int
    sought: bytes | None
    info: _InfoT  # what the process knows of the flow beside its bytes
    share: Share
    path: Any
    epoch: int  # of the frames on this path
    sink: Sink | None
    snd_nxt: int
    snd_una: int
    snd_max: int
    snd_limit: int
    inflight: int
    congestion: int
    rcv_nxt: int
    rcv_limit: int
    window: int
    backlog: int
    since: float
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
    def attached(self) -> bool: ...
    @property
    def resting(self) -> bool:
        """Whether nothing of it is under way, and nothing has been for a round of timers."""
    def bind(self, sink: Sink) -> None:
        """Puts the flow under its socket."""

    def finish(self) -> None:
        """The socket's end of stream: this direction ends after what was pushed."""

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
