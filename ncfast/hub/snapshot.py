"""The hub's state, as GET /status gives it; addresses and identities masked as the log masks them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ncfast import __version__
from ncfast.hub.edge import Edge
from ncfast.hub.ground import Ground
from ncfast.hub.level import Level
from ncfast.hub.listener import ClientListener
from ncfast.hub.relays import Relays
from ncfast.hub.routing import Router
from ncfast.hub.session import AgentSession
from ncfast.hub.sessions import Sessions
from ncfast.hub.ways import Ways
from ncfast.observe.log import mask_address, mask_identity
from ncfast.observe.totals import LinkTotals
from ncfast.registry import DistributedRegistry


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

    def take(self) -> dict[str, Any]:
        """Everything at one moment."""
        ground, router = self.ground, self.router
        stats, context, flows = ground.stats, ground.context, ground.flows
        now = ground.clock()
        mesh = self.ways.mesh
        meshed = mesh.totals() if mesh is not None else LinkTotals()
        tunnels = self.sessions.totals.plus(session.link for session in self.sessions)
        return {
            "role": "hub",
            "version": __version__,
            "replica_id": ground.replica_id,
            "mode": ground.mode,
            "pid": os.getpid(),
            "uptime_sec": round(now - ground.started_at, 3),
            "state": ground.readiness.state,
            "ready": ground.readiness.status(),
            "edge": self.edge.address,
            "admin": self.admin_address(),
            "listeners": [self._listener(one) for one in self.listeners.values()],
            "agents": [self._agent(session, now) for session in self.sessions if session.known],
            "flows": {
                "active": len(flows),
                "opening": sum(flow.opening for flow in flows.values()),
                "detached": sum(flow.detached_at >= 0 for flow in flows.values()),
                "held": sum(router.hold.count.values()),
                "opened": stats.flows_opened,
                "closed": dict(stats.flows_closed),
                "resumed": stats.flows_resumed,
                "by_path": {"local": 0, "mesh": 0} | Counter(flow.info.path for flow in flows.values()),
                "relayed": len(self.relays.by_cid),
            },
            "bytes": {
                "client_in": context.bytes_read,
                "client_out": context.bytes_in,
                "discarded": context.discarded,
            },
            "memory": {
                "budget_bytes": context.budget,
                "held_bytes": context.held,
                "segments_in_use": context.pool.in_use,
                "segments_free": context.pool.free_count,
            },
            "links": {
                "frames_in": dict(tunnels.frames_in),
                "frames_out": dict(tunnels.frames_out),
                "bytes_in": tunnels.bytes_in,
                "bytes_out": tunnels.bytes_out,
                "duplicates": context.duplicates,
                "gaps": context.gaps,
                "epoch_mismatch": stats.epochs_refused + tunnels.stale_epoch + meshed.stale_epoch,
            },
            "mesh_frames": {"in": dict(meshed.frames_in), "out": dict(meshed.frames_out)},
            "cluster": self._cluster(),
        }

    def _listener(self, one: ClientListener) -> dict[str, Any]:
        return {
            "name": one.name,
            "bind": one.address,
            "connector": one.config.connector,
            "tenant": one.config.tenant,
            "active": one.active,
            "accepted": self.ground.stats.accepted[one.name],
            "held": self.router.hold.count[one.name],
            "accepting": one.accepting,
        }

    def _agent(self, session: AgentSession, now: float) -> dict[str, Any]:
        link = session.link
        return {
            "agent_id": mask_identity(session.agent_id),
            "tenant": session.identity.tenant,
            "epoch": session.epoch,
            "standby": session.standing,
            "session": session.session_id,
            "connectors": sorted(session.connectors),
            "remote": mask_address(session.remote),
            "rtt_ms": round(link.rtt * 1000, 3),
            "flows": session.load,
            "bytes_in": link.bytes_in,
            "bytes_out": link.bytes_out,
            "connected_sec": round(now - session.started_at, 3),
            "queued_frames": link.queued,
            "inflight_bytes": link.inflight,
            "draining": session.draining,
            "token_expires_sec": round(session.identity.expires_at - self.ground.wall_clock(), 1),
        }

    def _cluster(self) -> dict[str, Any] | None:
        if not self.ground.config.ha.enabled:
            return None
        view = self.registry.view
        linked = {peer.replica_id for peer in self.ways.peers()}
        return {
            "name": self.ground.config.ha.cluster,
            "mode": self.ground.mode,
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
            "agents": [
                {
                    "agent_id": mask_identity(one.agent_id),
                    "tenant": one.tenant,
                    "owner": one.owner,
                    "epoch": one.epoch,
                    "connectors": sorted(one.connectors),
                    "draining": one.draining,
                }
                for one in view.agents.values()
            ],
        }
