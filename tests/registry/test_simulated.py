"""Registries of three hubs on a virtual clock, with the model in Redis's place: claims under every fault, from a seed.

`SEEDS=2000 pytest tests/registry/test_simulated.py` plays more of them.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from simulation.loop import Loop, World

from ncfast.config.ha import Ha
from ncfast.net.seam import Net
from ncfast.observe.stats import Stats
from ncfast.registry import AgentEntry, Replica
from ncfast.registry.redis.registry import RedisRegistry
from registry.model import ModelBackend, Server

SEEDS = int(os.environ.get("SEEDS", "60"))
BUSY = 40.0  # seconds of faults
QUIET = 30.0  # seconds without, after which all must be well
KEYS = ["/one", "/two", "acme/one", "acme/two"]
NAMES = ["hub-a", "hub-b", "hub-c"]


class Hub:
    """One process: a loop, its registry, and the tunnels that it believes in."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.number = 0
        self.boot()

    def boot(self) -> None:
        world, seed = self.cluster.world, self.cluster.rng.randrange(1 << 30)
        self.number += 1
        self.loop = Loop(world, f"{self.name}.{self.number}")
        self.net = Net(self.loop, rng=random.Random(seed), entropy=random.Random(seed + 1).randbytes)
        self.stats = Stats()
        config = Ha(enabled=True, replica_id=self.name, redis_url="redis://model", lease_sec=3)
        self.backend = ModelBackend(self.cluster.server, self.net, self.cluster.delay)
        self.registry = RedisRegistry(
            config,
            Replica(self.name, self.net.entropy(8).hex()),
            self.net,
            self.stats,
            self.backend,
            self.cluster.wall,
        )
        self.registry.on_fenced = self.fenced
        self.tunnels: dict[str, int] = {}
        self.net.spawn(self.registry.start(), "start")

    def die(self) -> None:
        self.loop.kill()
        self.backend.close()
        self.cluster.server.backends.remove(self.backend)
        for key in self.tunnels:
            self.cluster.agents[key].lost(self)
        self.tunnels = {}

    def take(self, agent: Agent) -> None:
        """The agent says HELLO here."""
        if self.cluster.rng.random() < 0.1:  # and is gone before the answer
            task = self.net.spawn(self._claim(agent, agent.instance, agent.last), "claim")
            self.net.call_later(self.cluster.rng.random() * 0.1, task.cancel)
        else:
            self.net.spawn(self._claim(agent, agent.instance, agent.last), "claim")

    async def _claim(self, agent: Agent, instance: str, last: int) -> None:
        started = self.net.clock()
        epoch = await self.registry.claim_ownership(
            agent.key, self.name, at_least=last, instance=instance, connectors=["ldap"], window=4096
        )
        if self.net.clock() - started > 1.5 and not self.cluster.frozen_since(started):
            self.cluster.world.problem(f"{self.name}: a claim took {self.net.clock() - started:.3f} s")
        if epoch <= last:
            self.cluster.world.problem(f"{agent.key}: epoch {epoch} is not above {last}")
        twin = self.cluster.granted.setdefault((agent.key, epoch), (self.loop.name, instance))
        if twin != (self.loop.name, instance):
            self.cluster.world.problem(f"{agent.key}: epoch {epoch} was granted twice: {twin} and {self.loop.name}")
        self.cluster.world.note(f"{self.name} owns {agent.key} {epoch}")
        self.tunnels[agent.key] = epoch
        agent.owned(self, instance, epoch)

    def lose(self, key: str) -> None:
        """The tunnel closes."""
        epoch = self.tunnels.pop(key, None)
        if epoch is not None:
            self.net.spawn(self.registry.release(key, epoch), "release")

    def fenced(self, entry: AgentEntry) -> None:
        self.cluster.world.note(f"{self.name} fenced {entry.key} {entry.epoch}")
        if self.tunnels.get(entry.key, entry.epoch) < entry.epoch:
            self.lose(entry.key)
            self.cluster.agents[entry.key].lost(self)


class Agent:
    def __init__(self, cluster: Cluster, key: str) -> None:
        self.cluster = cluster
        self.key = key
        self.last = 0
        self.hub: Hub | None = None
        self.restart()

    def restart(self) -> None:
        """A new process remembers nothing."""
        self.instance = f"{self.cluster.rng.randrange(1 << 32):08x}"
        self.last = 0

    def owned(self, hub: Hub, instance: str, epoch: int) -> None:
        if instance != self.instance or epoch < self.last:
            hub.lose(self.key)  # a tunnel that nobody is at the other end of
            return
        self.last = epoch
        if self.hub is not None and self.hub is not hub:
            old = self.hub  # its tunnel is closed, a moment later or never noticed
            if self.cluster.rng.random() < 0.7:
                self.cluster.world.after(self.cluster.rng.random(), old.lose, self.key)
        self.hub = hub

    def lost(self, hub: Hub) -> None:
        if self.hub is hub:
            self.hub = None

    def move(self) -> None:
        hub = self.cluster.rng.choice(self.cluster.hubs)
        if not hub.loop.dead and not hub.loop.frozen:
            hub.take(self)


class Cluster:
    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.rng = self.world.rng
        self.skew = 0
        self.slowness = 0.0005
        self.server = Server(lambda: self.world.now * 1000 + 1_700_000_000_000 + self.skew)
        self.granted: dict[tuple[str, int], tuple[str, str]] = {}
        self.thawed_at = 0.0
        self.hubs = [Hub(self, name) for name in NAMES]
        self.agents = {key: Agent(self, key) for key in KEYS}
        self.quiet = False

    def wall(self) -> float:
        """What the hubs' own clocks say."""
        return self.world.now + 1_700_000_000

    def delay(self) -> float:
        return self.slowness * (0.5 + self.rng.random())

    def frozen_since(self, when: float) -> bool:
        return self.thawed_at >= when

    # faults

    def fault(self) -> None:
        if self.quiet:
            return
        hub = self.rng.choice(self.hubs)
        kind = self.rng.choice(
            ["freeze", "kill", "flush", "cut", "partition", "stop hub", "kill hub", "slow", "clock", "forget"]
        )
        length = self.rng.choice([0.05, 0.3, 1.0, 4.0, 9.0])
        self.world.note(f"{kind} {hub.name} {length}")
        later = self.world.after
        if kind == "freeze" and not self.server.down and not self.server.frozen:
            self.server.freeze()
            later(length, self.server.thaw)
        elif kind == "kill" and not self.server.down:
            self.server.kill()
            later(length, self.server.restart)
        elif kind == "flush":
            self.server.data.clear()
        elif kind == "cut":
            hub.backend.cut()
        elif kind == "partition":
            backend = hub.backend
            backend.reachable = False
            later(length, setattr, backend, "reachable", True)
        elif kind == "stop hub" and not hub.loop.frozen and not hub.loop.dead:
            loop = hub.loop
            loop.freeze()
            later(length, self.thaw, loop)
        elif kind == "kill hub" and not hub.loop.dead and not hub.loop.frozen:
            hub.die()
            later(length, hub.boot)
        elif kind == "slow":
            self.slowness = self.rng.choice([0.0005, 0.02, 0.2])
            later(length, setattr, self, "slowness", 0.0005)
        elif kind == "clock":
            self.skew += self.rng.choice([1, 60_000])
        elif kind == "forget":
            self.rng.choice(list(self.agents.values())).restart()
        later(self.rng.expovariate(0.7), self.fault)

    def thaw(self, loop: Loop) -> None:
        self.thawed_at = self.world.now
        loop.thaw()

    def work(self) -> None:
        if self.quiet:
            return
        self.rng.choice(list(self.agents.values())).move()
        self.world.after(self.rng.expovariate(3.0), self.work)

    # the end

    def check(self) -> None:
        problem = self.world.problem
        for hub in self.hubs:
            registry = hub.registry
            if not registry.is_healthy() or not registry.view.fresh:
                problem(f"{hub.name} is not healthy: {registry.snapshot()}")
            if set(registry.view.replicas) != set(NAMES):
                problem(f"{hub.name} sees {sorted(registry.view.replicas)}")
            if registry._claiming or not registry._mirror.settled:
                problem(f"{hub.name} has something left over: {registry._claiming} {vars(registry._mirror)}")
            if {key: entry.epoch for key, entry in registry._held.items()} != hub.tunnels:
                problem(f"{hub.name} holds {registry._held} and has {hub.tunnels}")
        for key in KEYS:
            owners = [(hub.tunnels[key], hub) for hub in self.hubs if key in hub.tunnels]
            if len(owners) > 1:
                problem(f"{key} is owned by {[hub.name for _, hub in owners]}")
            wanted = (owners[0][1].name, owners[0][0]) if owners else None
            for hub in self.hubs:
                entry = hub.registry.view.agent(key)
                if (None if entry is None else (entry.owner, entry.epoch)) != wanted:
                    problem(f"{hub.name} sees {entry} of {key}, and it is {wanted}")
                routes = {one.key for one in hub.registry.view.routes(entry.tenant, "ldap")} if entry else set()
                if wanted and key not in routes:
                    problem(f"{hub.name} has no route to {key}")

    def run(self) -> World:
        world = self.world
        world.after(1.0, self.work)
        world.after(2.0, self.fault)
        world.run(world.now + BUSY)
        self.quiet = True
        world.run(world.now + QUIET)
        self.check()
        for hub in self.hubs:
            hub.net.spawn(hub.registry.aclose(), "close")
        world.run(world.now + 5)
        for hub in self.hubs:
            left = [task.get_name() for task in hub.loop.tasks if not task.done()]
            if left or hub.loop.timers:
                world.problem(f"{hub.name} left {left} and {len(hub.loop.timers)} timers")
        if self.server.data.agents or self.server.data.replicas:
            world.problem(f"left in Redis: {self.server.data.agents} {self.server.data.replicas}")
        return world


def play(seed: int, show: Any = None) -> World:
    cluster = Cluster(seed)
    cluster.world._show = show
    return cluster.run()


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_claims_under_faults(first):
    for seed in range(first, min(first + 20, SEEDS)):
        world = play(seed)
        assert not world.problems, f"seed {seed}: {world.problems}"


def no_assert_after_a_loss(monkeypatch):
    monkeypatch.setattr(RedisRegistry, "_assert", lambda self, entry: None)


def memory_grants_the_next_epoch(monkeypatch):
    monkeypatch.setattr(RedisRegistry, "_leap", lambda self, key, at_least: max(at_least, self._seen.of(key)) + 1)


def notices_are_never_missed(monkeypatch):
    monkeypatch.setattr(RedisRegistry, "beat_soon", lambda self, delay=0.0: None)
    beaten = RedisRegistry.beaten

    def deaf(self, reply, anew):
        reply[7] = reply[7] if self._mirror._pulled is None and not self._mirror.version else []
        beaten(self, reply, anew)

    monkeypatch.setattr(RedisRegistry, "beaten", deaf)


def fenced_hubs_hold_on(monkeypatch):
    monkeypatch.setattr(RedisRegistry, "_fence", lambda self, held, newer: None)


def orphans_stay(monkeypatch):
    reconcile = RedisRegistry._reconcile
    monkeypatch.setattr(RedisRegistry, "_reconcile", lambda self, key: key in self._held and reconcile(self, key))


def a_breaker_that_stays_open(monkeypatch):
    monkeypatch.setattr("ncfast.registry.breaker.LONGEST_PAUSE", 300.0)
    monkeypatch.setattr("ncfast.registry.breaker.FIRST_PAUSE", 60.0)


@pytest.mark.parametrize(
    ("plant", "within"),
    [
        (no_assert_after_a_loss, 20),
        (memory_grants_the_next_epoch, 20),
        (notices_are_never_missed, 20),
        (fenced_hubs_hold_on, 20),
        (orphans_stay, 60),
        (a_breaker_that_stays_open, 20),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_simulation_notices(monkeypatch, plant, within):
    """Planted bugs are found: a simulation that is always green says nothing."""
    plant(monkeypatch)
    assert any(play(seed).problems for seed in range(within))


def test_the_same_seed_gives_the_same_run():
    assert play(7).fingerprint == play(7).fingerprint != play(8).fingerprint


if __name__ == "__main__":
    import sys

    print(play(int(sys.argv[1]), print).problems)
