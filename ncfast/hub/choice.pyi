"""Which agent a client's flow goes to."""

from collections.abc import Callable

from ncfast.hub.client import ClientFlow, ClientInfo
from ncfast.hub.ground import Ground
from ncfast.hub.hold import Hold
from ncfast.hub.pending import PendingOpens
from ncfast.hub.sessions import Sessions
from ncfast.hub.steering import Steering
from ncfast.hub.ways import Ways
from ncfast.mesh.peer import Peer
from ncfast.net.socket import SocketEnd
from ncfast.registry import AgentEntry

DRAWN: int  # agents of a connector that are compared for a new flow

class Choice:
    """The usual way of a client's flow at the hub where it has come in."""

    _ground: Ground
    _sessions: Sessions
    _ways: Ways
    _pending: PendingOpens
    _steering: Steering
    hold: Hold  # clients that wait
    flow_number: int  # of the last one here; a successor's begin above those of its predecessor
    _opened: Callable[[ClientFlow], None]  # one for all flows

    def __init__(
        self,
        ground: Ground,
        sessions: Sessions,
        ways: Ways,
        pending: PendingOpens,
        steering: Steering,
        hold: Hold,
    ) -> None: ...
    def client_ready(self, end: SocketEnd, info: ClientInfo) -> None:
        """A client's socket is there: give it a flow and a way."""

    def _enter(self, flow: ClientFlow) -> None: ...
    def dispatch(self, flow: ClientFlow) -> bool:
        """Sends the open on the best way to an agent that serves it and has not refused it yet. False: there is
        none."""

    def opened(self, flow: ClientFlow) -> None:
        """The target is connected."""

    def _remote_way(self, info: ClientInfo) -> tuple[AgentEntry, Peer] | None:
        """An agent of another hub, and the link to that, if there is one that takes the flow."""

    def _hold_or_refuse(self, flow: ClientFlow) -> None:
        """There is no way."""
