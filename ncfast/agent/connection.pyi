"""Flows' connections to a target, from M_OPEN on."""

from typing import Any

from ncfast.agent.ground import Ground
from ncfast.agent.info import AgentInfo
from ncfast.config.agent import Connector
from ncfast.core.budget import Share
from ncfast.core.flow import Flow
from ncfast.core.link import Link
from ncfast.core.opening import Ends
from ncfast.net.socket import SocketEnd

class Connections:
    """Of one target."""

    ground: Ground
    share: Share
    young: dict[Connection, Any]  # whose transports have no keepalive yet, the oldest first
    dials: int  # under way
    reached: bool  # by the last dial, and there was one since the last check

    def __init__(self, ground: Ground, config: Connector, share: Share) -> None: ...
    def open(self, link: Link, cid: bytes, limit: int, request: tuple[Any, ...]) -> None:
        """A flow that `link` has asked for, with the members of what its M_OPEN says (`Opening`); dials for
        it. At `max_dials` at once it is refused, so that a flood of opens stays a few connects."""

    def _proxy_header(self, client: Ends) -> bytes:
        """What the target hears first, where it wants to know who the client is."""

    def _no_room(self, flow: Flow[AgentInfo]) -> None:
        """None for the flow, of which the target has seen nothing."""

    def _failed(self, flow: Flow[AgentInfo], exc: OSError) -> None:
        """There is no connection for the flow, and why."""

class Connection:
    """One flow's connection to its target, from the dial on."""

    @property
    def since(self) -> float:
        """When the flow was opened."""

    def give_up(self) -> None:
        """Ends the dial that is under way: the flow is over."""

    def socket_ready(self, end: SocketEnd) -> None: ...
    def socket_gone(self, end: SocketEnd) -> None: ...
