"""What is shared: by the two directions of a flow, and by all flows of a process."""

from collections.abc import Callable
from typing import Any, Protocol

from ncfast._frames import DedupRing, SegmentPool
from ncfast.core.budget import Budget, Share
from ncfast.core.ends import Path, Sink, Source
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow

class _Owner(Protocol):
    """The process: hub or agent."""

    def flow_closed(self, flow: Flow[Any], reason: Reason, /) -> None:
        """Once for each flow."""

    def flow_resumed(self, flow: Flow[Any], /) -> None:
        """It goes on, by another way or after its own was lost."""

    def flow_refused(self, flow: Flow[Any], reason: Reason, /) -> bool:
        """Whether an open that the target never saw goes to another agent."""

class FlowBase(Source):
    """What both directions of a flow, and the context, know of it. It has no constructor: only `Flow` is made."""

    cid: bytes
    open_body: bytes | None  # empty when it is not sent again
    state: int
    share: Share
    sink: Sink | None
    path: Any
    epoch: int  # of the frames on this path
    backlog: int
    since: float

    def cut(self, code: int) -> None:
        """As `Flow.reset`, but nothing is brought to its end before: what the flow holds is free when this returns."""

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
