"""Registries of several hubs in one process, on a real Redis or on the model, and what the tests ask them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvloop
from support.until import SCENARIO_SEC, until

from ncfast.config.ha import Ha
from ncfast.net.seam import Net
from ncfast.observe.stats import Stats
from ncfast.registry import AgentEntry, DistributedRegistry, Replica, make_registry

INSTANCES = itertools.count(1)


def run(main: Callable[[Net], Awaitable[None]], seconds: float = SCENARIO_SEC) -> None:
    """`main(net)` on the product's loop."""

    async def limited() -> None:
        net = Net(asyncio.get_running_loop())
        async with asyncio.timeout(seconds):
            await main(net)
        left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, "tasks left over"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


def replica(name: str, mesh_url: str = "") -> Replica:
    return Replica(name, f"{next(INSTANCES):016x}", mesh_url or f"tcp://{name}:7000")


class Hub:
    """One hub's registry, and what it has told."""

    def __init__(self, net: Net, url: str, name: str, process: Replica | None = None, **config: Any) -> None:
        self.stats = Stats()
        self.config = Ha(enabled=True, replica_id=name, redis_url=url, **config)
        self.replica = process or replica(name)
        self.registry: DistributedRegistry = make_registry(self.config, self.replica, net, self.stats)
        self.view = self.registry.view
        self.agents: list[str] = []
        self.fenced: list[AgentEntry] = []
        self.replica_changes = 0
        self.registry.on_agents = self.agents.extend
        self.registry.on_fenced = self.fenced.append
        self.registry.on_replicas = self._replicas_changed

    def _replicas_changed(self) -> None:
        self.replica_changes += 1

    async def claim(self, key: str, at_least: int = 0, *connectors: str, instance: str = "aa") -> int:
        return await self.registry.claim_ownership(
            key,
            self.replica.replica_id,
            at_least=at_least,
            instance=instance,
            connectors=connectors or ("ldap",),
            window=4096,
        )

    def routes(self, connector: str = "ldap", tenant: str | None = None) -> list[tuple[str, str, int]]:
        return sorted((entry.key, entry.owner, entry.epoch) for entry in self.view.routes(tenant, connector))

    @property
    def healthy(self) -> bool:
        return self.registry.is_healthy()


@contextlib.asynccontextmanager
async def cluster(net: Net, url: str, *names: str, **config: Any) -> AsyncIterator[list[Hub]]:
    """Started hubs that know each other."""
    hubs = [Hub(net, url, name, **config) for name in names or ("hub-a", "hub-b", "hub-c")]
    try:
        for hub in hubs:
            await hub.registry.start()
        await until(lambda: all(len(hub.view.replicas) == len(hubs) for hub in hubs), "all hubs known to all")
        yield hubs
    finally:
        for hub in hubs:
            await hub.registry.aclose()
