"""What the rooms of a hub stand on, whatever else they know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ncfast.config.hub import HubConfig
from ncfast.core.context import FlowContext
from ncfast.core.flow import Flow
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.expiry import ends_at
from ncfast.net.seam import Net
from ncfast.observe.readiness import Readiness
from ncfast.observe.stats import Stats
from ncfast.registry import Locks


class Giving(Protocol):
    """What the rooms ask of a hand-over to a successor (`ncfast.hub.giving`)."""

    def passes(self, flow: Any) -> bool:
        """Whether the successor gets a flow that has no way here."""

    def stays(self, session: Any) -> None:
        """The agent does not come to the successor by itself."""

    def let_go(self, session: Any, cid: bytes) -> None:
        """The agent, which has claimed at the successor, has let go of a flow on its tunnel here."""

    def gave(self, cid: bytes) -> bool:
        """Whether a flow that is not here may be the successor's by now."""

    def lost(self, session: Any) -> None:
        """The tunnel of an agent that was owned here has ended."""

    def take_back(self) -> None:
        """The successor has failed, and is dead."""

    def snapshot(self) -> dict[str, Any]:
        """For /status."""


class Taking(Protocol):
    """What they ask of one from a predecessor (`ncfast.hub.taking`)."""

    def take_over(self, channel: Any) -> None:
        """All is bound."""

    def granted(self, session: Any) -> None:
        """An agent has claimed here."""

    def asked(self, cid: bytes, epoch: int) -> None:
        """Another hub asks for a flow that has not come, for the agent that it owns under this epoch."""

    def resumed(self, pause: float) -> None:
        """A flow that has come goes on, after so many seconds."""

    def snapshot(self) -> dict[str, Any]:
        """For /status."""


class Awaited(Protocol):
    """And of the flows that are yet to come from there (`ncfast.hub.awaited`)."""

    def awaits(self, cid: bytes) -> bool:
        """Whether it is one of them."""

    def complete(self, agent: str) -> bool:
        """Whether all flows of this agent are here."""

    def keep(self, cid: bytes, link: Any, epoch: int, again: Callable[[], object]) -> None:
        """The flow is asked for."""

    def came(self, cid: bytes) -> bool:
        """The flow is here: works with what was asked for it. False: nobody has."""


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
    def config(self) -> HubConfig:
        """What is in force."""
        return self._config

    @config.setter
    def config(self, config: HubConfig) -> None:
        self._config = config
        # out of the model, for each client is asked for it: looking into one is slow
        self.mode = config.ha.mode if config.ha.enabled else "off"  # off, shadow or active
        self.max_flows = config.limits.max_flows

    def shows(self, use: str, certificate: Path | None) -> None:
        """The certificate in the file is in force from now on, or none."""
        self.certificates.pop(use, None)
        if certificate is not None and (end := ends_at(certificate)) is not None:
            self.certificates[use] = end

    def ours(self, cid: bytes) -> bool:
        """Whether a flow's client came to this very process, or to one that it has followed."""
        return cid.startswith(self.instance)

    def missing(self, cid: bytes) -> bool:
        """Whether a flow is ours by its cid, is not here, and has not ended here lately: another process of this hub
        may have it."""
        return self.ours(cid) and cid not in self.flows and self.context.closed.last(cid) is None

    def awaits(self, cid: bytes) -> bool:
        """Whether a flow that is not here may come in a moment, from our predecessor."""
        return self.awaited is not None and self.awaited.awaits(cid)

    def gave(self, cid: bytes) -> bool:
        """Whether a flow that is not here may be our successor's by now."""
        return self.giving is not None and self.giving.gave(cid)
