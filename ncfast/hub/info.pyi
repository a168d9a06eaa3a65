"""What the hub knows of a client's flow beside its bytes."""

from collections.abc import Callable

from ncfast.config.hub import Listener
from ncfast.core.budget import Share
from ncfast.core.flow import Flow
from ncfast.core.opening import Ends
from ncfast.core.timeouts import Timeouts
from ncfast.hub.client import Key
from ncfast.hub.entrance import Place
from ncfast.hub.session import AgentSession
from ncfast.mesh.peer import Peer
from ncfast.observe.stats import ListenerStats

def names_of(listener: Listener) -> tuple[str, Key]:
    """Its own, and for what its clients come."""

class ClientInfo:
    """The listener's settings are those with which the client came in."""

    listener: Listener
    timeouts: Timeouts
    counts: ListenerStats  # the listener's
    share: Share | None  # of the memory; None: of what no listener answers for
    name: str  # the listener's
    key: Key
    ends: Ends
    accepted_at: float
    on_opened: Callable[[Flow[ClientInfo]], None]
    place: Place | None
    agent_key: str
    instance: str  # of the agent's process
    session: AgentSession | None  # the tunnel by which it goes, or
    peer: Peer | None  # the link to the owner
    owner: str  # the replica that owns, or last owned, the agent
    remote: bool  # that is another hub
    epoch: int  # the highest under which the flow was carried
    counted: bool  # among the opens without an answer
    sends: int  # of M_OPEN to this agent
    hold_until: float  # the end of its time in the queue, if it ever came there
    resumes: int
    handovers: int  # from one process of this hub to the next
    lost_at: float  # passed by another process, it has had no way since then; -1: it has one
    sought_at: float  # when we last asked an owner for it
    tried: frozenset[str]  # agents that have refused it
    refusals: int  # by hubs that did not own the agent
    refused: frozenset[tuple[str, int]]  # agent and epoch under which a hub did not own it

    def __init__(
        self,
        listener: Listener,
        timeouts: Timeouts,
        host: str,
        port: int,
        now: float,
        counts: ListenerStats,
        share: Share | None = None,
    ) -> None: ...
    @property
    def client(self) -> str:
        """Who it is: host:port."""

    @property
    def connector(self) -> str: ...
    @property
    def path(self) -> str:
        """Where the agent is, or last was: what logs and metrics call the flow's path."""

    def flow_opened(self, flow: Flow[ClientInfo]) -> None:
        """M_OPEN_ACK has come."""
