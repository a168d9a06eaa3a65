"""The hub's state, as GET /status gives it; addresses and identities masked as the log masks them."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from ncfast import __version__
from ncfast.observe.log import mask_address, mask_identity

if TYPE_CHECKING:
    from ncfast.hub.hub import Hub
    from ncfast.hub.session import AgentSession


def snapshot(hub: Hub) -> dict[str, Any]:
    """Everything at one moment; also brings the counters of `hub.stats` up to date that links and flows keep
    themselves."""
    now = hub.net.clock()
    stats, context = hub.stats, hub.context
    sessions = [session for session in hub.agents if session.established or session.standing]
    tunnels = hub.tunnel_totals.plus(session.link for session in hub.agents)
    stats.frames_in, stats.frames_out = tunnels.frames_in, tunnels.frames_out
    stats.cid_dedup_dropped = context.duplicates
    stats.epoch_mismatch = (
        hub.epochs_refused + tunnels.stale_epoch + (hub.mesh.stale_epoch if hub.mesh is not None else 0)
    )
    stats.client_bytes_in, stats.client_bytes_out = context.bytes_read, context.bytes_in
    stats.bytes_discarded = context.discarded
    return {
        "role": "hub",
        "version": __version__,
        "replica_id": hub.replica_id,
        "mode": hub.mode,
        "pid": os.getpid(),
        "uptime_sec": round(now - hub.started_at, 3),
        "state": hub.state,
        "ready": hub.readiness.status(),
        "edge": hub.edge.address,
        "admin": hub.admin_address,
        "listeners": [
            {
                "name": one.name,
                "bind": one.address,
                "connector": one.config.connector,
                "tenant": one.config.tenant,
                "active": one.active,
                "accepted": stats.accepted[one.name],
                "held": hub.router.hold.count[one.name],
                "accepting": one.accepting,
            }
            for one in hub.listeners.values()
        ],
        "agents": [_agent(hub, session, now) for session in sessions],
        "flows": {
            "active": len(hub.flows),
            "opening": sum(flow.opening for flow in hub.flows.values()),
            "detached": sum(flow.detached_at >= 0 for flow in hub.flows.values()),
            "held": sum(hub.router.hold.count.values()),
            "opened": stats.flows_opened,
            "closed": dict(stats.flows_closed),
            "resumed": stats.flows_resumed,
            "by_path": {"local": 0, "mesh": 0} | Counter(flow.info.path for flow in hub.flows.values()),
            "relayed": len(hub.relays.by_cid),
        },
        "bytes": {"client_in": stats.client_bytes_in, "client_out": stats.client_bytes_out},
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
        },
        "mesh_frames": hub.mesh.frames() if hub.mesh is not None else {"in": {}, "out": {}},
        "cluster": _cluster(hub),
    }


def _agent(hub: Hub, session: AgentSession, now: float) -> dict[str, Any]:
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
        "token_expires_sec": round(session.identity.expires_at - hub.wall_clock(), 1),
    }


def _cluster(hub: Hub) -> dict[str, Any] | None:
    if not hub.config.ha.enabled:
        return None
    view = hub.registry.view
    linked = {peer.replica_id for peer in hub.peers()}
    return {
        "name": hub.config.ha.cluster,
        "mode": hub.mode,
        "registry": hub.registry.snapshot(),
        "mesh": hub.mesh.snapshot() if hub.mesh is not None else [],
        "replicas": [
            {
                "replica_id": one.replica_id,
                "self": one.replica_id == hub.replica_id,
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
