"""Opens of our clients' flows."""

from collections.abc import Collection

from ncfast.hub.client import ClientFlow
from ncfast.hub.ground import Ground
from ncfast.hub.pending import PendingOpens
from ncfast.hub.session import AgentSession
from ncfast.mesh.peer import Peer

_Way = AgentSession | Peer  # the tunnel of an agent that is owned here, or the link to the hub that owns it

UNDIRECTED: bytes  # what M_OPEN says of a flow that is on no way yet

class Opens:
    """The flows of our clients by agent, each on its way."""

    _ground: Ground
    _pending: PendingOpens
    _flows_of: dict[str, dict[ClientFlow, None]]
    _waiting: dict[tuple[str, str], dict[ClientFlow, None]]  # for their turn to be opened again, in order

    def __init__(self, ground: Ground, pending: PendingOpens) -> None: ...
    def flows_of(self, agent: str) -> Collection[ClientFlow]:
        """Our clients' flows to this agent."""

    def open(self, flow: ClientFlow, agent: str, instance: str, way: _Way, epoch: int, credit: int = 0) -> None:
        """The flow is the agent's, and its process's, from now on; M_OPEN leaves."""

    def send_open(self, flow: ClientFlow, way: _Way, epoch: int, credit: int = 0) -> None:
        """M_OPEN by a tunnel, or by the link to the owner; `credit` is what the agent gives then."""

    def use(self, flow: ClientFlow, way: _Way, epoch: int) -> None:
        """Notes by which way the flow goes from now on, and lets its M_OPEN and M_RESUME say what they must there."""

    def answered(self, flow: ClientFlow) -> None:
        """The open is no longer in progress."""

    def closed(self, flow: ClientFlow) -> None:
        """The flow is over; what is known of its way stays for the log."""

    def _leave(self, flow: ClientFlow) -> None: ...
    def _waits_no_more(self, flow: ClientFlow) -> None: ...
    def give_turns(self, agent: str, connector: str, most: int) -> int:
        """Opens those of the connector again that have waited for longest, as far as the agent may have more; how many,
        at most `most`."""
