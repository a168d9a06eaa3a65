"""What the rooms of a hub stand on, whatever else they know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncfast.config.hub import HubConfig
from ncfast.core.flow import Flow, FlowContext
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.expiry import ends_at
from ncfast.net.seam import Net
from ncfast.observe.readiness import Readiness
from ncfast.observe.stats import Stats
from ncfast.registry import Locks

if TYPE_CHECKING:
    from ncfast.hub.awaited import Awaited
    from ncfast.hub.giving import Giving
    from ncfast.hub.taking import Taking


class Ground:
    """Configuration, seam, counters, the context of all flows, and who this hub is.

    `config` is replaced by a reload: read it where it is needed, and keep no part of it that may change.
    """

    def __init__(
        self, config: HubConfig, net: Net, wall_clock: Callable[[], float], instance: bytes | None = None
    ) -> None:
        """`instance` is the predecessor's, if there is one: to all others this process is the same hub."""
        self.config = config
        self.net = net
        self.clock = net.clock  # monotonic seconds
        self.wall_clock = wall_clock  # unix seconds, for tokens, epochs and locks alone
        self.locks = Locks(wall_clock)
        self.stats = Stats()
        self.readiness = Readiness(mode=self.mode)  # the hub's state is kept there
        self.replica_id = config.ha.replica_id or "hub"
        self.instance = instance or net.entropy(8)  # first half of every cid: unique across hubs and restarts
        self.giving: Giving | None = None  # while a successor takes over what is here
        self.taking: Taking | None = None  # while this process takes over what is at a predecessor
        self.awaited: Awaited | None = None  # the flows that have not come from there yet
        self.context = FlowContext(
            net.clock,
            budget=config.limits.memory_bytes,
            window_initial=config.flow.window_initial,
            window_max=config.flow.window_max,
            seed=int.from_bytes(net.entropy(8)),
        )
        self.context.share.weigh(int(config.ha.enabled))  # what is relayed, for which no listener answers
        self.context.reader_pause = config.flow.reader_pause_sec
        self.flows: dict[bytes, Flow[Any]] = self.context.flows  # whose client sockets are here
        self.receive_buffer = ReceiveBuffer()
        self.certificates: dict[str, float] = {}  # that we show at doors of ours: when they end, unix seconds
        self.started_at = net.clock()

    @property
    def mode(self) -> str:
        """off, shadow or active."""
        return self.config.ha.mode if self.config.ha.enabled else "off"

    def shows(self, use: str, certificate: Path | None) -> None:
        """The certificate in the file is in force from now on, or none."""
        self.certificates.pop(use, None)
        if certificate is not None and (end := ends_at(certificate)) is not None:
            self.certificates[use] = end

    def ours(self, cid: bytes) -> bool:
        """Whether a flow's client came to this very process, or to one that it has followed."""
        return cid.startswith(self.instance)

    def awaits(self, cid: bytes) -> bool:
        """Whether a flow that is not here may come in a moment, from our predecessor."""
        return self.awaited is not None and cid in self.awaited
