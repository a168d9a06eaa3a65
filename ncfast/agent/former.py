"""The tunnel that we have left for another process of its hub, and the flows that still go by it.

That hub gets its flows from the process at the other end, one by one. It says M_DETACH here when a flow's turn comes:
we say the same, behind all that we have sent of the flow, and take it up over the owner's tunnel. The tunnel ends when
the hub ends it, or after `STAYS`; flows that are on it then are taken up as after any loss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ncfast.agent.ground import Ground
from ncfast.agent.info import AgentInfo
from ncfast.agent.tunnel import AgentTunnel
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow

STAYS = 60.0  # seconds; thousands of flows take a while over a long way, and none of them waits


class Former:
    """Of one agent; mostly there is none."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._timer: asyncio.TimerHandle | None = None
        self.tunnel: AgentTunnel | None = None

    def keep(self, tunnel: AgentTunnel) -> None:
        """We have left this one. One that there was ends."""
        self.close("moved to another process of the hub again")
        self.tunnel = tunnel
        self._timer = self._ground.net.call_later(STAYS, self.close, "moved to another process of the hub")

    def waits(self, cid: bytes) -> None:
        """The hub has said of this flow that it has lost its way, before we were granted what we have left for."""
        if self.tunnel is not None:
            self.tunnel.link.tell_detached(cid, self.tunnel.epoch, Reason.LINK_LOST)

    def carries(self, flow: Flow[AgentInfo]) -> bool:
        """Whether the flow goes by it."""
        return self.tunnel is not None and flow.path is self.tunnel.link

    def lets_go(self, tunnel: AgentTunnel, cid: bytes) -> Flow[AgentInfo] | None:
        """The hub has said of a flow on this tunnel that it has lost its way; returns it if it is to be taken up."""
        flow = self._ground.flows.get(cid)
        if tunnel is not self.tunnel or flow is None or flow.attached:
            return None
        self.waits(cid)
        return flow

    def ended(self) -> Iterable[Flow[AgentInfo]]:
        """Returns the flows that have no way."""
        self.tunnel = None
        self.stop()
        return [flow for flow in self._ground.flows.values() if not flow.attached]

    def stop(self) -> None:
        """Ends no tunnel by itself any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self, detail: str) -> None:
        """Ends it, if there is one."""
        if self.tunnel is not None:
            self.tunnel.close(detail)
