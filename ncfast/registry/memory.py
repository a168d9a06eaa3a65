"""The registry of a hub without Redis: what it knows is its own agents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ncfast.net.seam import Net
from ncfast.observe.stats import Stats
from ncfast.registry.base import DistributedRegistry, inherited
from ncfast.registry.entry import AgentEntry, Replica
from ncfast.registry.locks import Lock
from ncfast.registry.view import View


class MemoryRegistry(DistributedRegistry):
    """Epochs only grow, also across a restart of the hub: a claim names the last epoch that the agent remembers."""

    def __init__(self, replica: Replica, net: Net, stats: Stats, wall_clock: Callable[[], float]) -> None:
        super().__init__(replica, net, View(net.clock, float("inf")), wall_clock)
        self._stats = stats
        self._epochs: dict[str, int] = {}
        self.view.confirm()

    async def start(self) -> None:
        self._show()

    async def aclose(self) -> None:
        for key in list(self.view.agents):
            self.view.drop(key)

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
        if not 0 <= at_least <= self.claimable():
            raise ValueError("no registry has granted such an epoch")
        epoch = max(self._epochs.get(agent_id, 0), at_least) + 1
        self._epochs[agent_id] = epoch
        self._stats.claims["memory"] += 1
        self._put(
            AgentEntry(
                agent_id,
                replica_id,
                epoch,
                instance,
                frozenset(connectors),
                window,
                owner_instance=self.replica.instance,
            )
        )
        return epoch

    async def add_connectors(
        self, agent_id: str, connectors: Iterable[str], *, epoch: int, draining: bool = False
    ) -> None:
        entry = self.view.agent(agent_id)
        if entry is not None and entry.epoch == epoch:
            self._put(replace(entry, connectors=frozenset(connectors), draining=draining))

    async def release(self, agent_id: str, epoch: int) -> None:
        entry = self.view.agent(agent_id)
        if entry is not None and entry.epoch == epoch:
            self.view.drop(agent_id)
            self._tell_agent(agent_id)

    async def set_draining(self) -> None:
        self.replica = replace(self.replica, draining=True)
        self._show()

    def held(self) -> list[AgentEntry]:
        return list(self.view.agents.values())

    def adopt(self, heritage: dict[str, Any]) -> list[AgentEntry]:
        entries = inherited(heritage)
        for entry in entries:
            self._epochs[entry.key] = entry.epoch
            self._put(entry)
        return entries

    def quiet(self, on: bool, *, beats: bool = True) -> None:
        """There is nobody to tell."""

    def spread(self, lock: Lock) -> None:
        """There is no other hub to tell."""

    async def get_owner(self, agent_id: str) -> tuple[str, int] | None:
        entry = self.view.agent(agent_id)
        return (entry.owner, entry.epoch) if entry is not None else None

    def is_healthy(self) -> bool:
        return True

    def snapshot(self) -> dict[str, Any]:
        return {
            "kind": "memory",
            "healthy": True,
            "fresh": True,
            "breaker": "closed",
            "view_age_sec": 0.0,
            "agents": len(self.view.agents),
            "replicas": len(self.view.replicas),
            "commands": 0,
            "errors": 0,
        }

    def _put(self, entry: AgentEntry) -> None:
        if self.view.put(entry):
            self._tell_agent(entry.key)

    def _show(self) -> None:
        if self.view.set_replicas([(self.replica, 0, 0)]):
            self._tell_replicas()
