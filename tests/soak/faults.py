"""What is done to the cluster, one fault after the other, drawn from a seed.

A fault is over when every hub and agent is in its place again; only then comes the next, so that a loss has one cause.
The kinds are dealt like cards: each comes once before any comes again.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from support.cluster import NAMES
from support.ncfast_process import Agent, Hub, merged
from support.successor import OperatedAgent, OperatedHub
from support.until import wait_until

from . import announced
from .installation import DRAIN_SEC, Installation
from .ledger import Fault, Ledger

BLIP_SEC = (0.2, 2.0)  # how long what is stopped stays away
OUTAGE_SEC = (2.0, 8.0)
FREEZE_SEC = (3.0, 20.0)
# Clients of an agent that stands still wait for `open_timeout_sec` or `hold_sec`, 10 s each: less than these.
AGENT_FREEZE_SEC = (1.0, 8.0)
DIALLED = NAMES[1:]  # by their peers: of two hubs the smaller name's dial is the one that stays
CALM_SEC = (3.0, 10.0)  # between two faults


class Faults:
    """Plays faults until it is told to stop."""

    def __init__(self, site: Installation, ledger: Ledger, seed: int, only: list[str] | None = None) -> None:
        self._site, self._ledger = site, ledger
        self._cluster = site.cluster
        self._random = random.Random(seed)
        known = {name.removeprefix("_play_"): getattr(self, name) for name in dir(self) if name.startswith("_play_")}
        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            name: play for name, play in known.items() if not only or name in only
        }

    async def run(self, until: float) -> None:
        """Faults until `time.monotonic` is there; a rolling restart first, so that the veterans begin with the load."""
        for name in self._deal():
            await asyncio.sleep(self._drawn(CALM_SEC))
            if time.monotonic() >= until:
                return
            await self.kinds[name]()

    def _deal(self) -> Iterator[str]:
        if "rolling_restart" in self.kinds:
            yield "rolling_restart"
        others = sorted(self.kinds.keys() - {"rolling_restart"})
        while others:
            self._random.shuffle(others)
            yield from others

    def _drawn(self, between: tuple[float, float]) -> float:
        return self._random.uniform(*between)

    def _hub(self) -> str:
        return self._random.choice(NAMES)

    def _mortal_hub(self) -> str:
        return self._random.choice([name for name in NAMES if name not in self._site.veterans])

    def _mortal_agent(self) -> str:
        return self._random.choice(
            [one.agent_id for one in self._cluster.agents if one.agent_id not in self._site.veterans]
        )

    async def _settle(self) -> None:
        await asyncio.to_thread(self._cluster.wait_settled)

    # what lies between

    async def _cut(self, what: str, kind: str, target: str) -> None:
        """A fault of a proxy; its effect is over when what went through it has been replaced."""
        proxy = self._cluster.proxies[what, target]
        old = self._old_tunnels if what == "tunnel" else self._old_links
        with self._ledger.fault(f"{what} {kind}", target) as fault:
            await asyncio.to_thread(proxy.fault, kind)
            if kind == "down":
                await asyncio.sleep(self._drawn(OUTAGE_SEC))
                await asyncio.to_thread(proxy.up)
            await asyncio.to_thread(
                wait_until,
                lambda: not old(target, time.monotonic() - fault.began),
                lambda: f"other ways than {old(target, time.monotonic() - fault.began)}",
            )
            await self._settle()

    def _old_tunnels(self, name: str, age: float) -> list[str]:
        """Agents whose tunnel to the hub is older than so many seconds."""
        return [one["agent_id"] for one in self._cluster.hubs[name].status()["agents"] if one["connected_sec"] > age]

    def _old_links(self, name: str, age: float) -> list[str]:
        """Peers that have dialled the hub, and whose link is older."""
        rows = self._cluster.links(name).values()
        return [row["peer"] for row in rows if row["direction"] == "in" and row["since_sec"] > age]

    async def _play_tunnel_reset(self) -> None:
        await self._cut("tunnel", "rst", self._hub())

    async def _play_tunnel_silence(self) -> None:
        await self._cut("tunnel", "silence", self._hub())

    async def _play_tunnel_deaf(self) -> None:
        await self._cut("tunnel", self._random.choice(("drop_up", "drop_down")), self._hub())

    async def _play_tunnel_outage(self) -> None:
        await self._cut("tunnel", self._random.choice(("down", "restart")), self._hub())

    async def _play_mesh_reset(self) -> None:
        await self._cut("mesh", "rst", self._random.choice(DIALLED))

    async def _play_mesh_silence(self) -> None:
        await self._cut("mesh", "silence", self._random.choice(DIALLED))

    async def _play_mesh_deaf(self) -> None:
        await self._cut("mesh", self._random.choice(("drop_up", "drop_down")), self._random.choice(DIALLED))

    async def _play_mesh_outage(self) -> None:
        await self._cut("mesh", self._random.choice(("down", "restart")), self._random.choice(DIALLED))

    # hubs

    async def _play_hub_killed(self) -> None:
        """SIGKILL, and back."""
        await self._kill(self._mortal_hub(), "hub killed")

    async def _play_owner_killed(self) -> None:
        """The same to a hub that owns an agent, if there is one that may be killed."""
        owners = {self._cluster.owner(agent.agent_id) for agent in self._cluster.agents}
        mortal = sorted(name for name in owners if name and name not in self._site.veterans)
        await self._kill(self._random.choice(mortal or [self._mortal_hub()]), "owner killed")

    async def _kill(self, name: str, kind: str) -> None:
        with self._ledger.fault(kind, name, announced.ORIGIN_KILLED) as fault:
            self._site.closed.add(name)
            await asyncio.to_thread(self._cluster.kill, name)
            await asyncio.sleep(self._drawn(OUTAGE_SEC))
            await self._start(name, fault)

    async def _start(self, name: str, fault: Fault) -> None:
        await _whole(self._cluster.start, name)
        fault.over = time.monotonic()
        self._site.closed.discard(name)
        await self._settle()

    async def _play_hub_frozen(self) -> None:
        """SIGSTOP: the kernel goes on acknowledging, nobody answers."""
        name = self._hub()
        with self._ledger.fault("hub frozen", name):
            self._cluster.freeze(name)
            await asyncio.sleep(self._drawn(FREEZE_SEC))
            self._cluster.thaw(name)
            await self._settle()

    async def _play_hub_drained(self) -> None:
        await self._drain(self._mortal_hub())

    async def _drain(self, name: str) -> None:
        with self._ledger.fault("hub drained", name, announced.ORIGIN_DRAINED, patience=DRAIN_SEC) as fault:
            self._site.closed.add(name)
            code = await asyncio.to_thread(self._cluster.stop, name)
            if code:
                self._ledger.fail(f"{name} has drained and ended with {code}")
            await self._start(name, fault)

    async def _play_rolling_restart(self) -> None:
        for name in NAMES:
            await self._drain(name)

    # upgrades, by which nothing may be lost

    async def _play_hub_upgraded(self) -> None:
        name = self._mortal_hub()
        await self._upgrade("hub upgraded", name, self._cluster.hubs[name])

    async def _play_agent_upgraded(self) -> None:
        agent_id = self._mortal_agent()
        await self._upgrade("agent upgraded", agent_id, self._site.agent(agent_id))

    async def _upgrade(self, kind: str, name: str, one: Hub | Agent) -> None:
        assert isinstance(one, OperatedHub | OperatedAgent)
        with self._ledger.fault(kind, name):
            done = await asyncio.to_thread(one.upgrade)
            if done.returncode:
                self._ledger.fail(f"{name} was not upgraded: {done.stderr}")
            await self._settle()

    # configurations

    async def _play_reload(self) -> None:
        """Other settings by SIGHUP, and the former ones again, hub by hub."""
        changes: list[dict[str, Any]] = [
            {"logging": {"level": "debug"}},
            {"flow": {"stall_sec": 60}},
            {"limits": {"opens_per_source_per_sec": 100_000}},
            {"ha": {"mesh": {"send_queue_depth": 2000}}},
        ]
        change = self._random.choice(changes)
        with self._ledger.fault("reload", " ".join(change)):
            for name in NAMES:
                await self._reload(name, change)
            await asyncio.sleep(self._drawn(BLIP_SEC))
            for name in NAMES:
                await self._reload(name, {})
            await self._settle()

    async def _reload(self, name: str, change: dict[str, Any]) -> None:
        hub = self._cluster.hubs[name]
        taken = await asyncio.to_thread(hub.reload, merged(hub.config, change))
        if not taken:
            self._ledger.fail(f"{name} has refused {change}")

    async def _play_mode_shadow(self) -> None:
        """active, shadow, active."""
        with self._ledger.fault("mode shadow", "all hubs", announced.MODE_SHADOW):
            for name in NAMES:
                await self._reload(name, {"ha": {"mode": "shadow"}})
            await asyncio.sleep(self._drawn(BLIP_SEC))
            for name in NAMES:
                await self._reload(name, {})
            await self._settle()

    # Redis

    async def _play_redis_restarted(self) -> None:
        """SIGKILL; it comes back empty."""
        redis = self._cluster.redis
        assert redis is not None
        with self._ledger.fault("redis restarted", "redis"):
            await asyncio.to_thread(redis.kill)
            await asyncio.sleep(self._drawn(OUTAGE_SEC))
            await _whole(redis.start)
            await self._settle()

    async def _play_redis_frozen(self) -> None:
        redis = self._cluster.redis
        assert redis is not None
        with self._ledger.fault("redis frozen", "redis"):
            redis.freeze()
            await asyncio.sleep(self._drawn(OUTAGE_SEC))
            redis.thaw()
            await self._settle()

    # agents

    async def _play_agent_restarted(self) -> None:
        """SIGTERM, so a drain, and back."""
        await self._restart(self._mortal_agent(), signal.SIGTERM)

    async def _play_agent_killed(self) -> None:
        await self._restart(self._mortal_agent(), signal.SIGKILL)

    async def _restart(self, agent_id: str, number: signal.Signals) -> None:
        agent = self._site.agent(agent_id)
        kind = "agent killed" if number is signal.SIGKILL else "agent restarted"
        with self._ledger.fault(
            kind,
            agent_id,
            announced.AGENT_RESTARTED,
            announced.AGENT_AWAY,
            connectors=self._site.served_by(agent_id),
            alone=self._site.served_by_it_alone(agent_id),
        ) as fault:
            agent.program.signal(number)
            code = await asyncio.to_thread(agent.program.wait)
            fault.struck = time.monotonic()
            if number is signal.SIGTERM and code:
                self._ledger.fail(f"{agent_id} has drained and ended with {code}")
            await _whole(agent.start)
            fault.over = time.monotonic()
            await self._settle()

    async def _play_agent_frozen(self) -> None:
        agent = self._random.choice(self._cluster.agents)
        with self._ledger.fault("agent frozen", agent.agent_id):
            agent.program.signal(signal.SIGSTOP)
            await asyncio.sleep(self._drawn(AGENT_FREEZE_SEC))
            agent.program.signal(signal.SIGCONT)
            await self._settle()


async def _whole(start: Callable[..., object], *arguments: object) -> None:
    """Run what starts a process in a thread, and wait for it even when cancelled: what it starts must be known to those
    who end everything."""
    starting = asyncio.ensure_future(asyncio.to_thread(start, *arguments))
    try:
        await asyncio.shield(starting)
    finally:
        await asyncio.wait([starting])
