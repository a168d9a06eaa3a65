"""A client as the hub knows it: who it is, and which way its flow takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ncfast.config.hub import Listener
from ncfast.core.budget import Share
from ncfast.core.flow import Flow
from ncfast.core.opening import Ends
from ncfast.core.timeouts import Timeouts
from ncfast.hub.session import AgentSession
from ncfast.observe.stats import ListenerStats

if TYPE_CHECKING:
    from ncfast.mesh.peer import Peer

Key = tuple[str | None, str]  # tenant, connector
EMPTY: frozenset[Any] = frozenset()
ClientFlow: TypeAlias = "Flow[ClientInfo]"


def names_of(listener: Listener) -> tuple[str, Key]:
    """Its own, and for what its clients come. Looking into a model is slow, and a listener has many of them."""
    return listener.name, (listener.tenant, listener.connector)


class Place(Protocol):
    """A client's place at its listener."""

    def leave(self) -> None:
        """Its socket is another process's."""


class ClientInfo:
    """What the hub knows of a flow beside its bytes. The listener's settings are those with which the client came
    in."""

    __slots__ = (
        "accepted_at",
        "agent_key",
        "counted",
        "counts",
        "ends",
        "epoch",
        "handovers",
        "hold_until",
        "instance",
        "key",
        "listener",
        "lost_at",
        "name",
        "on_opened",
        "owner",
        "peer",
        "place",
        "refusals",
        "refused",
        "remote",
        "resumes",
        "sends",
        "session",
        "share",
        "sought_at",
        "timeouts",
        "tried",
    )

    def __init__(
        self,
        listener: Listener,
        timeouts: Timeouts,
        host: str,
        port: int,
        now: float,
        counts: ListenerStats,
        share: Share | None = None,
        names: tuple[str, Key] | None = None,
    ) -> None:
        """`names` is what `names_of` says of the listener, if it is at hand."""
        self.listener = listener
        self.counts = counts  # the listener's
        self.share = share  # of the memory; None: of what no listener answers for
        self.name, self.key = names_of(listener) if names is None else names
        self.timeouts = timeouts
        self.ends: Ends = (host, port, "", 0)
        self.accepted_at = now
        self.on_opened: Callable[[ClientFlow], None]
        self.place: Place | None = None
        self.agent_key = ""
        self.instance = ""  # of the agent's process
        self.session: AgentSession | None = None  # the tunnel by which it goes, or
        self.peer: Peer | None = None  # the link to the owner
        self.owner = ""  # the replica that owns, or last owned, the agent
        self.remote = False  # that is another hub
        self.epoch = 0  # the highest under which the flow was carried
        self.counted = False  # among the opens without an answer
        self.sends = 0  # of M_OPEN to this agent
        self.hold_until = 0.0  # the end of its time in the queue, if it ever came there
        self.resumes = 0
        self.handovers = 0  # from one process of this hub to the next
        self.lost_at = -1.0  # passed by another process, it has had no way since then
        self.sought_at = float("-inf")  # when we last asked an owner for it
        self.tried: frozenset[str] = EMPTY  # agents that have refused it
        self.refusals = 0  # by hubs that did not own the agent
        self.refused: frozenset[tuple[str, int]] = EMPTY  # agent and epoch under which a hub did not own it

    @property
    def client(self) -> str:
        """Who it is: host:port."""
        host, port, _, _ = self.ends
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def connector(self) -> str:
        return self.key[1]

    @property
    def path(self) -> str:
        """Where the agent is, or last was: what logs and metrics call the flow's path."""
        return "mesh" if self.remote else "local"

    def flow_opened(self, flow: ClientFlow) -> None:
        """M_OPEN_ACK has come."""
        self.on_opened(flow)
