"""The hub's state, as GET /status gives it; addresses masked as the log masks them, agents by their ids.

What costs by the thousand agents or flows is made in slices (`ncfast.observe.slices`). Everything else is of one
moment, that of the last slice: so opened = closed + active in every answer. What ends between two slices is in no row,
but its frames are counted: counters never go back.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

from ncfast import __version__
from ncfast.hub.client import ClientFlow, Key
from ncfast.hub.edge import Edge
from ncfast.hub.flows import Flows
from ncfast.hub.ground import Ground
from ncfast.hub.level import Level
from ncfast.hub.listener import ClientListener
from ncfast.hub.relays import Relays
from ncfast.hub.routing import Router
from ncfast.hub.session import AgentSession
from ncfast.hub.sessions import Sessions
from ncfast.hub.ways import Ways
from ncfast.net.socket import SocketEnd
from ncfast.observe.log import mask_address
from ncfast.observe.metrics import CONNECTORS, OTHER
from ncfast.observe.slices import Slices, each
from ncfast.observe.totals import LinkTotals
from ncfast.registry import AgentEntry, DistributedRegistry, Lock

AGENTS = 32  # looked at in one slice, about 0.25 ms
FLOWS = 512  # the same
ASKED = 64  # sockets about which the kernel is asked in one slice, the same
SAMPLE = 1024  # of more flows every second, third, ... is asked, and the sum is scaled

Rows = list[dict[str, Any]]


class Sums:
    """What is added up over agents and flows; `links` are those that have ended, to begin with."""

    def __init__(self, links: LinkTotals, configured: frozenset[str]) -> None:
        self.links = links
        self._configured = configured  # connectors that a listener leads to
        self.tunnels = {"owned": 0, "standby": 0, "draining": 0, "queued_frames": 0, "inflight_bytes": 0}
        self.connectors: Counter[str] = Counter()
        self.flows = {"opening": 0, "detached": 0, "local": 0, "mesh": 0}
        self.kernel = 0  # bytes in the kernel for the sockets that were asked
        self.bytes: dict[str, list[int]] = {}  # by listener: read from its clients, come for them
        self.token_ends = inf  # the soonest of all agents, unix seconds
        self.reach: dict[Key, int] = {}  # agents that could serve a listener's clients

    def add_sessions(self, sessions: list[AgentSession]) -> None:
        tunnels = self.tunnels
        for session in sessions:
            link = session.link
            self.links.add(link)  # also of one that has ended since: it is not among those to begin with
            if not session.known:
                continue
            self.token_ends = min(self.token_ends, session.identity.expires_at)
            tunnels["draining"] += session.draining
            tunnels["queued_frames"] += link.queued
            tunnels["inflight_bytes"] += link.inflight
            if session.owns:
                tunnels["owned"] += 1
                self._offers(session.connectors)
            else:
                tunnels["standby"] += 1

    def add_kernel(self, flows: list[ClientFlow]) -> None:
        for flow in flows:
            if isinstance(flow.sink, SocketEnd):
                self.kernel += flow.sink.in_kernel

    def _offers(self, connectors: frozenset[str]) -> None:
        """One agent's, so that it cannot use up the names by which all are counted."""
        if len(connectors) > CONNECTORS:
            wanted, rest = connectors & self._configured, sorted(connectors - self._configured)
            self.connectors[OTHER] += len(rest[CONNECTORS:])
            connectors = wanted.union(rest[:CONNECTORS])
        self.connectors.update(connectors)

    def add_flows(self, flows: list[ClientFlow]) -> None:
        sums = self.flows
        for flow in flows:
            sums["opening"] += flow.opening
            sums["detached"] += flow.detached_at >= 0
            info = flow.info
            sums[info.path] += 1
            both = self.bytes[info.listener.name]  # also of one that has ended since, as above
            both[0] += flow.snd_nxt
            both[1] += flow.rcv_nxt


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rooms that are looked into."""

    ground: Ground
    sessions: Sessions
    router: Router
    relays: Relays
    ways: Ways
    registry: DistributedRegistry
    level: Level
    edge: Edge
    listeners: dict[str, ClientListener]
    admin_address: Callable[[], str]

    def totals(self) -> Slices[dict[str, Any]]:
        """Everything but the rows of agents."""
        configured = frozenset(one.config.connector for one in self.listeners.values())
        sums = Sums(self.sessions.totals.plus(()), configured)
        yield from each(list(self.sessions), AGENTS, sums.add_sessions)
        sums.bytes = {name: [one.bytes_in, one.bytes_out] for name, one in self.ground.stats.listeners.items()}
        flows = list(self.ground.flows.values())
        yield from each(flows, FLOWS, sums.add_flows)
        step = len(flows) // SAMPLE + 1
        yield from each(flows[::step], ASKED, sums.add_kernel)
        sums.kernel = sums.kernel * len(flows) // max(1, len(flows[::step]))
        for one in list(self.listeners.values()):
            key = (one.config.tenant, one.config.connector)
            if key not in sums.reach:
                yield
                sums.reach[key] = self.router.reach(key)
        return self._document(sums)

    def agents(self, take: Callable[[Rows], object]) -> Slices[None]:
        """Hands over the rows of agents connected here, some at a time."""
        now = self.ground.clock()
        yield from each(
            list(self.sessions),
            AGENTS,
            lambda some: take([self._agent(session, now) for session in some if session.known]),
        )

    def cluster_agents(self, take: Callable[[Rows], object]) -> Slices[None]:
        """The same of the agents of all hubs, as the cached view has them; none without a cluster."""
        if self.ground.config.ha.enabled:
            known = list(self.registry.view.agents.values())
            yield from each(known, AGENTS, lambda some: take([_cluster_agent(entry) for entry in some]))

    def talkers(self) -> Slices[Rows]:
        """As `Flows.talkers`."""
        return Flows(self.ground, self.relays).talkers()

    def _document(self, sums: Sums) -> dict[str, Any]:
        ground, router, flows = self.ground, self.router, sums.flows
        stats, context = ground.stats, ground.context
        mesh = self.ways.mesh
        meshed = mesh.totals() if mesh is not None else LinkTotals()
        links = sums.links
        return {
            "role": "hub",
            "version": __version__,
            "replica_id": ground.replica_id,
            "cluster_name": ground.config.ha.cluster,
            "mode": ground.mode,
            "pid": os.getpid(),
            "uptime_sec": round(ground.clock() - ground.started_at, 3),
            "state": ground.readiness.state,
            "upgrade": self._upgrade(),
            "ready": ground.readiness.status(),
            "edge": self.edge.address,
            "admin": self.admin_address(),
            "listeners": [self._listener(one, sums.reach) for one in self.listeners.values()],
            "tunnels": {**sums.tunnels, "connectors": dict(sums.connectors)},
            "flows": {
                "active": len(ground.flows),
                "opening": flows["opening"],
                "detached": flows["detached"],
                "held": sum(router.hold.count.values()),
                "opened": stats.flows_opened,
                "closed": dict(stats.flows_closed),
                "passed": stats.flows_passed,
                "resumed": stats.flows_resumed,
                "by_path": {"local": flows["local"], "mesh": flows["mesh"]},
                "relayed": len(self.relays.by_cid),
            },
            "bytes": {
                "client_in": context.bytes_read,
                "client_out": context.bytes_in,
                "listeners": {name: {"in": both[0], "out": both[1]} for name, both in sums.bytes.items()},
                "acknowledged": context.bytes_out,
                "discarded": context.discarded,
            },
            "memory": {
                "budget_bytes": context.budget.size,
                "held_bytes": context.held,
                "kernel_bytes": sums.kernel,
                "segments_in_use": context.pool.in_use,
                "segments_free": context.pool.free_count,
            },
            "links": {
                "frames_in": dict(links.frames_in),
                "frames_out": dict(links.frames_out),
                "bytes_in": links.bytes_in,
                "bytes_out": links.bytes_out,
                "duplicates": context.duplicates,
                "gaps": context.gaps,
                "epoch_mismatch": stats.epochs_refused + links.stale_epoch + meshed.stale_epoch,
            },
            "mesh_frames": {"in": dict(meshed.frames_in), "out": dict(meshed.frames_out)},
            "names": {share: dict(counts) for share, counts in ground.net.names.counts.items()},
            "token_expires_sec": None if sums.token_ends == inf else round(sums.token_ends - ground.wall_clock(), 1),
            "certificates": self._certificates(),
            "locks": [self._lock(lock) for lock in ground.locks.in_force()],
            "cluster": self._cluster(),
        }

    def _upgrade(self) -> dict[str, Any] | None:
        """What is passed and what is left, while one is under way."""
        under_way = self.ground.giving or self.ground.taking
        return under_way.snapshot() if under_way is not None else None

    def _listener(self, one: ClientListener, reach: dict[Key, int]) -> dict[str, Any]:
        config = one.config
        return {
            "name": one.name,
            "bind": one.address,
            "connector": config.connector,
            "tenant": config.tenant,
            "agents": reach[key] if (key := (config.tenant, config.connector)) in reach else self.router.reach(key),
            "active": one.active,
            "accepted": one.counts.accepted,
            "held": self.router.hold.count[one.name],
            "weight": one.share.weight,
            "held_bytes": one.share.held,
            "own_bytes": one.share.own,
            "accepting": one.accepting,
        }

    def _agent(self, session: AgentSession, now: float) -> dict[str, Any]:
        link = session.link
        return {
            "agent_id": session.agent_id,
            "tenant": session.identity.tenant,
            "epoch": session.epoch,
            "standby": session.standing,
            "session": session.session_id,
            "connectors": sorted(session.connectors),
            "remote": mask_address(session.remote),
            "tls": session.tls,
            "rtt_ms": round(link.rtt * 1000, 3),
            "flows": session.load,
            "bytes_in": link.bytes_in,
            "bytes_out": link.bytes_out,
            "connected_sec": round(now - session.started_at, 3),
            "queued_frames": link.queued,
            "inflight_bytes": link.inflight,
            "draining": session.draining,
            "token_expires_sec": round(session.identity.expires_at - self.ground.wall_clock(), 1),
            "token_life_sec": round(session.identity.expires_at - session.identity.issued_at, 1),
        }

    def _certificates(self) -> dict[str, float]:
        """For how many seconds those that we show still count, by where."""
        ends = dict(self.ground.certificates)
        mesh = self.ways.mesh
        if mesh is not None and mesh.keys.certificates is not None:
            ends["mesh"] = mesh.keys.certificates.ends_at
        return {use: round(end - self.ground.wall_clock(), 1) for use, end in ends.items()}

    def _lock(self, lock: Lock) -> dict[str, Any]:
        tenant, _, agent_id = lock.key.partition("/")
        return {
            "agent_id": agent_id,
            "tenant": tenant or None,
            "reason": lock.reason,
            "left_sec": round(lock.until - self.ground.wall_clock(), 1),
        }

    def _cluster(self) -> dict[str, Any] | None:
        if not self.ground.config.ha.enabled:
            return None
        view = self.registry.view
        linked = {peer.replica_id for peer in self.ways.peers()}
        return {
            "name": self.ground.config.ha.cluster,
            "mode": self.ground.mode,
            "shadow": self._shadow() if self.ground.mode == "shadow" else None,
            "level": {
                "share": self.level.share,
                "levelling": self.level.begun,
                "under_way": self.level.under_way,
            },
            "registry": self.registry.snapshot(),
            "mesh": self.ways.mesh.snapshot() if self.ways.mesh is not None else [],
            "replicas": [
                {
                    "replica_id": one.replica_id,
                    "self": one.replica_id == self.ground.replica_id,
                    "mesh_url": one.mesh_url,
                    "draining": one.draining,
                    "linked": one.replica_id in linked,
                }
                for one in view.replicas.values()
            ],
        }

    def _shadow(self) -> Rows:
        return self.router.shadow.rows({one.config.connector for one in self.listeners.values()})


def _cluster_agent(entry: AgentEntry) -> dict[str, Any]:
    return {
        "agent_id": entry.agent_id,
        "tenant": entry.tenant,
        "owner": entry.owner,
        "epoch": entry.epoch,
        "connectors": sorted(entry.connectors),
        "draining": entry.draining,
    }
