"""A hub with nothing behind it: the snapshot and counters that the observability rooms read."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from ncfast.config.hub import HubConfig
from ncfast.hub import admin
from ncfast.hub.flows import NoSuchFlow, Query
from ncfast.hub.level import MoveRefused
from ncfast.observe.history import History
from ncfast.observe.readiness import Readiness, State
from ncfast.observe.slices import Slices, T, each
from ncfast.observe.stats import Stats

SLICE = 64  # agents


def whole(work: Slices[T]) -> T:
    """What the slices make, all in one go."""
    try:
        while True:
            next(work)
    except StopIteration as done:
        return done.value


class FakeFlows:
    """`rows` are all that there are; `killed` is what was asked for."""

    def __init__(self, count: int) -> None:
        self.rows = [self._row(number) for number in range(count)]
        self.asked: list[Query] = []
        self.killed: list[str] = []

    @staticmethod
    def _row(number: int) -> dict[str, Any]:
        return {
            "cid": f"{number:032x}",
            "path": "local",
            "state": "open",
            "listener": "l0",
            "connector": "c0",
            "tenant": None,
            "agent_id": "agent-canary-0",
            "hub": None,
            "client": "198.51.100.0/24",
            "age_sec": 60.0,
            "idle_sec": 1.5,
            "bytes_in": 1000,
            "bytes_out": 2000,
            "held_bytes": 4096,
            "to_client_bytes": 1024,
            "detached": False,
            "resumes": 0,
        }

    def select(self, query: Query) -> Slices[dict[str, Any]]:
        self.asked.append(query)
        yield
        return {
            "replica_id": "hub-a",
            "order": query.order,
            "active": len(self.rows),
            "relayed": 0,
            "matching": len(self.rows),
            "matching_held_bytes": 4096 * len(self.rows),
            "memory": {"budget_bytes": 1 << 30, "held_bytes": 8192, "relayed_bytes": 0},
            "flows": self.rows[: query.top],
        }

    def kill(self, cid: str) -> dict[str, Any]:
        self.killed.append(cid)
        for row in self.rows:
            if row["cid"] == cid:
                return row
        raise NoSuchFlow("no such flow")


class FakeHub:
    def __init__(self, listeners: int = 1, agents: int = 1, connectors: int = 1, peers: int | None = None) -> None:
        """``peers`` other hubs make a cluster; None is a hub without one."""
        self.stats = Stats()
        self.readiness = Readiness(state=State.SERVING)
        self.history = History()
        self.drains = 0
        self.hurried = False
        self.movable: dict[str, str] = {}  # agents that may be asked to move, and where to if nobody says
        self.active = 0
        self.flow_list = FakeFlows(2)
        self.listeners = [self._listener(n, connectors) for n in range(listeners)]
        self.rows = [self._agent(n, connectors) for n in range(agents)]
        self.mesh_frames = {"in": {}, "out": {}}
        for one in self.listeners:
            self.stats.listener(one["name"])
        self.bytes = {"client_in": 0, "client_out": 0, "acknowledged": 0, "discarded": 0, "listeners": {}}
        self.links: dict[str, Any] = {
            "frames_in": {},
            "frames_out": {},
            "bytes_in": 1000,
            "bytes_out": 2000,
            "duplicates": 0,
            "gaps": 0,
        }
        self.cluster = None if peers is None else self._cluster(peers, agents)
        self.cluster_rows = [] if peers is None else self._cluster_rows(peers, agents)

    @staticmethod
    def _listener(number: int, connectors: int) -> dict[str, Any]:
        return {
            "name": f"l{number}",
            "bind": f"127.0.0.1:{10000 + number}",
            "connector": f"c{number % connectors}",
            "tenant": None,
            "agents": 3,
            "active": 1,
            "accepted": 2,
            "held": 0,
            "weight": 1,
            "held_bytes": 0,
            "own_bytes": 1 << 28,
            "accepting": True,
        }

    @staticmethod
    def _agent(number: int, connectors: int) -> dict[str, Any]:
        return {
            "agent_id": f"agent-canary-{number}",
            "tenant": None,
            "epoch": 7,
            "session": "s",
            "connectors": [f"c{number % connectors}"],
            "remote": "198.51.100.77:4000",
            "tls": False,
            "rtt_ms": 1.5,
            "flows": 1,
            "bytes_in": 10,
            "bytes_out": 20,
            "connected_sec": 3.0,
            "queued_frames": 2,
            "inflight_bytes": 100,
            "token_expires_sec": 3600,
            "token_life_sec": 4000,
            "draining": False,
            "standby": False,
        }

    @staticmethod
    def _cluster(peers: int, agents: int) -> dict[str, Any]:
        names = [f"peer-{n}" for n in range(peers)]
        return {
            "name": "ncfast",
            "mode": "active",
            "shadow": None,
            "level": {"share": agents, "levelling": False, "under_way": 0},
            "registry": {
                "kind": "redis",
                "healthy": True,
                "fresh": True,
                "breaker": "closed",
                "view_age_sec": 0.25,
                "agents": agents,
                "replicas": peers + 1,
                "commands": 17,
                "errors": 1,
            },
            "mesh": [
                {
                    "peer": name,
                    "state": "up",
                    "carrier": "stream",
                    "tls": True,
                    "direction": "out",
                    "rtt_ms": 0.25,
                    "queued_frames": 3,
                    "inflight_bytes": 4096,
                    "relay_frames": 2,
                    "relay_bytes": 512,
                    "flows": 5,
                    "since_sec": 60.0,
                    "reconnects": 1,
                    "errors": 2,
                    "last_error": "connection_lost",
                    "last_error_sec": 75.0,
                    "url": f"tcp://127.0.0.1:{20000 + number}",
                }
                for number, name in enumerate(names)
            ],
            "replicas": [
                {"replica_id": "hub-a", "self": True, "mesh_url": "", "draining": False, "linked": False},
                *(
                    {"replica_id": name, "self": False, "mesh_url": "", "draining": False, "linked": True}
                    for name in names
                ),
            ],
        }

    @staticmethod
    def _cluster_rows(peers: int, agents: int) -> list[dict[str, Any]]:
        return [
            {
                "agent_id": f"agent-canary-{n}",
                "tenant": None,
                "owner": f"peer-{n % peers}" if peers else "hub-a",
                "epoch": 40 + n,
                "connectors": ["c0"],
                "draining": False,
            }
            for n in range(agents)
        ]

    @property
    def snapshot(self) -> FakeHub:
        return self  # its own: what `ncfast.hub.snapshot` gives

    def agents(self, take: Any) -> Slices[None]:
        yield from each(self.rows, SLICE, take)

    def cluster_agents(self, take: Any) -> Slices[None]:
        if self.cluster is not None:
            yield from each(self.cluster_rows, SLICE, take)

    def talkers(self) -> Slices[list[dict[str, Any]]]:
        yield
        return self.flow_list.rows

    @property
    def config(self) -> HubConfig:
        return HubConfig.model_validate({"listeners": []})

    def totals(self) -> Slices[dict[str, Any]]:
        tunnels: dict[str, Any] = dict.fromkeys(("owned", "standby", "draining", "queued_frames", "inflight_bytes"), 0)
        tunnels["connectors"] = Counter()

        def add(rows: list[dict[str, Any]]) -> None:
            for row in rows:
                tunnels["standby" if row["standby"] else "owned"] += 1
                tunnels["connectors"].update(row["connectors"] if not row["standby"] else ())
                for key in ("draining", "queued_frames", "inflight_bytes"):
                    tunnels[key] += row[key]

        yield from each(self.rows, SLICE, add)
        return self._document() | {"tunnels": tunnels}

    def document(self) -> dict[str, Any]:
        """As GET /status gives it."""
        document: dict[str, Any] = json.loads(b"".join(whole(admin.status(self))))
        return document

    def _document(self) -> dict[str, Any]:
        stats = self.stats
        return {
            "role": "hub",
            "version": "0.1.0",
            "replica_id": "hub-a",
            "cluster_name": "ncfast",
            "mode": "off",
            "pid": 1,
            "uptime_sec": 12.5,
            "state": self.readiness.state,
            "ready": self.readiness.status(),
            "edge": "127.0.0.1:8080",
            "admin": "127.0.0.1:9400",
            "listeners": self.listeners,
            "flows": {
                "active": self.active,
                "opening": 0,
                "detached": 0,
                "held": 0,
                "opened": stats.flows_opened,
                "closed": dict(stats.flows_closed),
                "resumed": stats.flows_resumed,
                "by_path": {"local": self.active, "mesh": 0},
                "relayed": 0,
            },
            "token_expires_sec": 3600.0,
            "certificates": {"edge": 7776000.0, "mesh": 2592000.0},
            "locks": [],
            "bytes": self.bytes,
            "memory": {
                "budget_bytes": 1 << 30,
                "held_bytes": 4096,
                "kernel_bytes": 0,
                "segments_in_use": 1,
                "segments_free": 3,
            },
            "links": self.links | {"epoch_mismatch": stats.epochs_refused},
            "mesh_frames": self.mesh_frames,
            "names": {"redis": {"answered": 7, "failed": 0, "hung": 1, "kept": 2}},
            "cluster": None if self.cluster is None else dict(self.cluster),
        }

    def move_agent(self, agent: str, hub: str | None) -> str:
        if agent not in self.movable:
            raise MoveRefused(f"no agent {agent}")
        return hub or self.movable[agent]

    def request_drain(self, *, at_once: bool = False) -> bool:
        self.drains += 1
        self.hurried = at_once
        self.readiness.move(State.DRAINING)
        return True
