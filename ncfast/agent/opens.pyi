"""M_OPEN as it comes on a tunnel."""

from typing import Any

from ncfast.agent.ground import Ground
from ncfast.agent.info import AgentInfo
from ncfast.agent.services import Services
from ncfast.core.flow import Flow
from ncfast.core.link import Link

class Opens:
    """At the agent's end of a tunnel."""

    _ground: Ground
    _services: Services
    link: Link  # set by the dialer before any frame can come
    owns: bool  # the hub has granted an epoch: with the state

    def __init__(self, ground: Any, services: Any) -> None: ...
    def _on_frame__open(self, cid: bytes, epoch: int, limit: int, body: bytes) -> None: ...
    def _may(self) -> bool:
        """Whether the hub may use our services; ends a tunnel over which one that owns nothing of ours would."""

    def _left_behind(self, flow: Flow[AgentInfo]) -> bool:
        """Whether the flow has gone on to a later tunnel: what asks for it here was on its way."""

    def _flow(self, cid: bytes) -> Flow[AgentInfo] | None:
        """The flow that a frame names, if it is here; one that a predecessor has passed comes in for that."""

    def carry(self, flow: Flow[AgentInfo]) -> None:
        """A flow that is here goes by this tunnel from now on."""
