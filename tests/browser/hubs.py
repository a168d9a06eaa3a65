"""Hubs to look at: an admin edge over a hub that has nothing behind it, with as much to show as wanted."""

from __future__ import annotations

import asyncio
import io
import math
import random
import threading
from typing import Any

import uvloop
from support.fake_hub import FakeHub

from ncfast.config.hub import Admin as AdminConfig
from ncfast.config.values import Address
from ncfast.hub.admin import Admin
from ncfast.net.request import HttpLimits
from ncfast.net.seam import Net
from ncfast.observe import log
from ncfast.observe.history import SAMPLES


class Edge:
    """Serves a hub's page from a thread of its own, at `url`."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(120)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self._loop = runner.get_loop()
            runner.run(self._serve())

    async def _serve(self) -> None:
        net = Net(asyncio.get_running_loop())
        admin = Admin(self.hub, net, HttpLimits())
        await admin.start(AdminConfig(bind=Address("127.0.0.1", 0)))
        self.url = f"http://{admin.address}/"
        self._over = asyncio.Event()
        self._ready.set()
        await self._over.wait()
        admin.close()
        await net.cancel_all()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


def hub_with(agents: int, *, peers: int | None = 3, trouble: bool = False) -> FakeHub:
    """A hub as it may stand after a quarter of an hour of work."""
    chance = random.Random(agents)
    hub = FakeHub(listeners=4, agents=agents, connectors=4, peers=peers)
    for one, name, connector in zip(
        hub.listeners, ("ldap-north", "ldap-south", "pg-reports", "https-intranet"), ("ldap", "ldaps", "pg", "https"),
        strict=True,
    ):  # fmt: skip
        one |= {"name": name, "connector": connector, "agents": -(-agents // 4), "active": 37, "accepted": 18422}
    for number, row in enumerate(hub.rows):
        row |= {
            "agent_id": f"site-{number:04}",
            "connectors": ["ldap", "ldaps"] if number % 3 else ["pg"],
            "remote": f"198.51.{number % 100}.0/24",
            "rtt_ms": chance.lognormvariate(2.5, 0.7),
            "flows": int(chance.paretovariate(1.1)),
            "bytes_in": int(chance.lognormvariate(16, 2)),
            "bytes_out": int(chance.lognormvariate(14, 2)),
            "connected_sec": chance.uniform(60, 400000),
            "token_expires_sec": chance.uniform(1500, 4000),
            "standby": number % 9 == 8,
            "draining": number % 50 == 49,
        }
    _history(hub, chance, agents)
    if peers is not None:
        _cluster(hub, agents)
    if agents:
        _talk(hub, chance)
    if trouble:
        _trouble(hub)
    hub.stats.listener("ldap-north").flows_closed.update(closed=18211, client_reset=190, target_refused=21)
    hub.stats.flows_opened = 18459
    _say(trouble)
    return hub


def _history(hub: FakeHub, chance: random.Random, agents: int) -> None:
    busy = max(1, agents) ** 0.5
    for k in range(SAMPLES):
        wave = 1.4 + math.sin(k / 17) + chance.uniform(-0.15, 0.15) + (2.5 if 120 < k < 128 else 0)
        opens = wave * busy if agents else 0.0
        hub.history.add(
            (
                round(12 * opens),
                opens * 30_000,
                opens * 240_000,
                opens,
                0.004 * wave if opens else math.nan,
                0.0011 + 0.0003 * chance.random(),
                opens * 90_000,
            )
        )
    hub.active = round(12 * opens)


def _cluster(hub: FakeHub, agents: int) -> None:
    assert hub.cluster is not None
    hub.cluster["name"] = "eu-central"
    names = ["hub-a", *(f"hub-{'bcdefgh'[k]}" for k in range(len(hub.cluster["mesh"])))]
    for replica, name in zip(hub.cluster["replicas"], names, strict=True):
        replica["replica_id"] = name
    for k, link in enumerate(hub.cluster["mesh"]):
        link |= {"peer": names[k + 1], "rtt_ms": 0.8 + 3.1 * k, "flows": 40 * (k + 1), "last_error": ""}
        hub.history.links[names[k + 1]] = 40_000.0 * 30**k
    for number, row in enumerate(hub.cluster_rows):
        row |= {"agent_id": f"site-{number:04}", "owner": names[number % len(names)]}


def _talk(hub: FakeHub, chance: random.Random) -> None:
    rows = [
        {
            "cid": chance.randbytes(16).hex(),
            "path": "local",
            "listener": "ldap-north",
            "client": "203.0.113.0/24",
            "agent_id": f"site-{number:04}",
            "age_sec": chance.uniform(1, 90000),
            "bytes_in": int(chance.lognormvariate(14, 2)),
            "bytes_out": int(chance.lognormvariate(18, 2)),
            "held_bytes": int(chance.lognormvariate(10, 2)),
        }
        for number in range(9)
    ]

    def talkers() -> Any:
        yield
        return rows

    hub.talkers = talkers  # type: ignore[attr-defined]


def _trouble(hub: FakeHub) -> None:
    hub.readiness.memory_pressure = True
    hub.listeners[2]["agents"] = 0
    hub.listeners[3]["accepting"] = False
    for row in hub.rows[:2]:
        row["token_expires_sec"] = 200
    if hub.cluster is not None and hub.cluster["mesh"]:
        lost = hub.cluster["mesh"][-1]
        lost |= {"state": "backoff", "rtt_ms": None, "carrier": None, "flows": 0, "last_error": "connection_lost"}
        hub.history.links.pop(lost["peer"])
        hub.cluster["replicas"][-1]["linked"] = False
        hub.cluster["replicas"][1]["draining"] = True


def _say(trouble: bool) -> None:
    log.setup(stream=io.StringIO(), format="json")
    said = log.get("hub")
    said.info("hub_ready", edge="127.0.0.1:8080", admin="127.0.0.1:9400", version="0.1.0", replica="hub-a")
    said.info("mesh_link_up", peer="hub-b", carrier="stream", direction="out")
    if trouble:
        said.warning("client_shed", listener="pg-reports", reason="memory", source="203.0.113.7")
        said.error("registry_lost", reason="timeout", detail="redis.example:6379 has not answered for 0.6 s; " * 4)
