"""The interface that hubs use, whatever keeps the entries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

from ncfast.core import epochs
from ncfast.net.seam import Net
from ncfast.registry.entry import AgentEntry, Replica
from ncfast.registry.locks import Lock, Locks
from ncfast.registry.view import View


def _written(entry: AgentEntry) -> dict[str, Any]:
    return {**asdict(entry), "connectors": sorted(entry.connectors)}


def inherited(heritage: dict[str, Any]) -> list[AgentEntry]:
    """The entries of `DistributedRegistry.heritage`. Raises ValueError."""
    try:
        return [AgentEntry(**{**one, "connectors": frozenset(one["connectors"])}) for one in heritage["agents"]]
    except (KeyError, TypeError) as exc:
        raise ValueError(f"no heritage of a registry: {exc}") from None


class DistributedRegistry(ABC):
    """Who owns which agent, under which epoch.

    An agent is named by its key, "tenant/agent_id": tenants are name spaces of their own. The newest claim always wins
    and never waits for the old owner. Epochs only grow. No method raises because Redis is away; each may be cancelled
    at any await. `view` is the cached picture, which answers without I/O; what changes in it is told by the `on_`
    callbacks, from the event loop, a turn after the change. `wall_clock` gives seconds since 1970: what an epoch may be
    goes with it (`ncfast.core.epochs`).
    """

    def __init__(self, replica: Replica, net: Net, view: View, wall_clock: Callable[[], float]) -> None:
        self.replica = replica
        self.net = net
        self.view = view
        self.on_agents: Callable[[frozenset[str]], None] = lambda keys: (
            None
        )  # keys of agents whose entry changed or went
        self.on_replicas: Callable[[], None] = lambda: None  # the set of live replicas changed
        self.on_fenced: Callable[[AgentEntry], None] = lambda entry: (
            None
        )  # an agent that we hold: a higher epoch is known
        self._wall_clock = wall_clock
        self.locks: Locks | None = None  # the hub's: what others say goes there, and from there to them
        self._changed_agents: set[str] = set()
        self._changed_replicas = False
        self._fenced: list[AgentEntry] = []
        self._telling = False

    def clock(self) -> float:
        """Seconds since 1970, by the clock that epochs begin at."""
        return self._wall_clock()

    def claimable(self) -> int:
        """The largest `at_least` that a claim may name; an agent that says more is not believed."""
        return epochs.claimable(self.clock())

    def possible(self) -> int:
        """The largest epoch that is believed of a hub or of the registry's data."""
        return epochs.possible(self.clock())

    @abstractmethod
    async def start(self) -> None:
        """Makes this replica known and follows the others. Neither fails nor waits because Redis is away."""

    @abstractmethod
    async def aclose(self) -> None:
        """Leaves in order, within a second or so: presence and agents are given up, and nothing is left running."""

    @abstractmethod
    async def claim_ownership(
        self,
        agent_id: str,
        replica_id: str,
        *,
        at_least: int = 0,
        instance: str = "",
        connectors: Iterable[str] = (),
        window: int = 0,
    ) -> int:
        """Makes `replica_id` the owner of the agent with the key `agent_id`, and returns the new epoch: above
        `at_least` (what the agent remembers), above the stored one, and above everything that this process ever saw for
        the agent.

        `instance` is the agent's process, `window` in bytes. Raises ValueError if `at_least` is not `claimable`.
        """

    @abstractmethod
    async def add_connectors(
        self, agent_id: str, connectors: Iterable[str], *, epoch: int, draining: bool = False
    ) -> None:
        """Says what an agent serves from now on, in place of what was said before, unless `epoch` is no longer ours."""

    @abstractmethod
    async def release(self, agent_id: str, epoch: int) -> None:
        """Gives the agent up, unless a later claim was made. Its epoch stays remembered."""

    @abstractmethod
    async def set_draining(self) -> None:
        """Says that this replica takes no new flows; the others route around it."""

    # a process that hands over to another of the same replica_id and process name (`ncfast.hub.giving`)

    def heritage(self) -> dict[str, Any]:
        """What the successor adopts: the agents that are held here, under their epochs."""
        return {"agents": [_written(entry) for entry in self.held()]}

    @abstractmethod
    def held(self) -> list[AgentEntry]:
        """The agents that this replica owns."""

    @abstractmethod
    def adopt(self, heritage: dict[str, Any]) -> list[AgentEntry]:
        """Before `start`: what the predecessor held is held here from now on, so that no route is lost in between.
        Returns it. Raises ValueError for what no predecessor says."""

    @abstractmethod
    def quiet(self, on: bool, *, beats: bool = True) -> None:
        """From now on a process of the same name says what this one would: nothing is asserted, released or fenced
        here, also not by `aclose`; without `beats` the replica is not even shown to live. Off: everything again."""

    def set_weight(self, weight: int) -> None:
        """The share of the agents that this replica is to have; the others see it when its presence is renewed."""
        self.replica = replace(self.replica, weight=weight)

    @abstractmethod
    def spread(self, lock: Lock) -> None:
        """Tells the other hubs a word of ours about a lock; at once, or as soon as there is a way to them."""

    async def list_agents(self, connector: str, tenant: str | None = None) -> list[AgentEntry]:
        """The agents that serve a connector of a tenant and can be routed to."""
        return list(self.view.routes(tenant, connector))

    @abstractmethod
    async def get_owner(self, agent_id: str) -> tuple[str, int] | None:
        """(replica_id, epoch) as the registry has it now, or None; while Redis is away, as the view last had it. If the
        view says otherwise it is about to be corrected."""

    @abstractmethod
    def is_healthy(self) -> bool:
        """Whether the registry answers."""

    @abstractmethod
    def snapshot(self) -> dict[str, Any]:
        """For /status: kind, healthy, fresh, breaker, view_age_sec, agents, replicas, commands, errors."""

    # telling the hub, not from within what changed

    def _tell_agent(self, key: str) -> None:
        self._changed_agents.add(key)
        self._tell_soon()

    def _tell_replicas(self) -> None:
        self._changed_replicas = True
        self._tell_soon()

    def _tell_fenced(self, entry: AgentEntry) -> None:
        self._fenced.append(entry)
        self._tell_soon()

    def _tell_soon(self) -> None:
        if not self._telling:
            self._telling = True
            self.net.call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        fenced, self._fenced = self._fenced, []
        agents, self._changed_agents = frozenset(self._changed_agents), set()
        replicas, self._changed_replicas = self._changed_replicas, False
        for entry in fenced:
            self.on_fenced(entry)
        if replicas:
            self.on_replicas()
        if agents:
            self.on_agents(agents)
