"""Every metric family of the hub: the one table from which exposition, documentation and tests are made.

A family is read from `Stats` and from the totals of `ncfast.hub.snapshot`. No label holds a flow, an agent, a tenant or
an address; `ncfast.observe.metrics` keeps the values of each bounded.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ncfast import __version__
from ncfast.observe import log
from ncfast.observe.readiness import STATUSES, State
from ncfast.observe.stats import Histogram, Stats

__all__ = ["LINK_STATES", "METRICS", "Metric", "Value"]

STATES = tuple(State)
LINK_STATES = ("backoff", "dialling", "handshaking", "up", "draining", "resting", "lost")  # of `ncfast.mesh.states`
BREAKER_STATES = ("closed", "open", "half_open")

Value = float | Histogram | Mapping[Any, float]  # by the value of the one label, or by a tuple of the labels' values
NOTHING: Mapping[str, float] = {}  # no sample: what is measured is not there, which is not the same as 0


@dataclass(frozen=True, slots=True)
class Metric:
    """One family: how it is called, what it says, where it is read from."""

    name: str
    help: str
    read: Callable[[Stats, dict[str, Any]], Value]
    labels: tuple[str, ...] = ()
    kind: str = "gauge"


def _counter(name: str, help: str, read: Callable[[Stats, dict[str, Any]], Value], *labels: str) -> Metric:
    return Metric(f"nowconnect_{name}_total", help, read, labels, "counter")


def _gauge(name: str, help: str, read: Callable[[Stats, dict[str, Any]], Value], *labels: str) -> Metric:
    return Metric(f"nowconnect_{name}", help, read, labels)


def _histogram(name: str, help: str, read: Callable[[Stats, dict[str, Any]], Value]) -> Metric:
    return Metric(f"nowconnect_{name}_seconds", help, read, (), "histogram")


def _per_listener(key: str) -> Callable[[Stats, dict[str, Any]], Value]:
    return lambda stats, hub: {entry["name"]: float(entry[key]) for entry in hub["listeners"]}


def _tunnels(key: str) -> Callable[[Stats, dict[str, Any]], Value]:
    return lambda stats, hub: hub["tunnels"][key]


def _locks(stats: Stats, hub: dict[str, Any]) -> Value:
    return len(hub["locks"])


def _frames(stats: Stats, hub: dict[str, Any]) -> Value:
    return {
        (direction, kind): count
        for direction in ("in", "out")
        for kind, count in hub["links"][f"frames_{direction}"].items()
    }


def _mesh_frames(stats: Stats, hub: dict[str, Any]) -> Value:
    frames = hub.get("mesh_frames") or {}
    return {(direction, kind): count for direction, kinds in frames.items() for kind, count in kinds.items()}


def _name_lookups(stats: Stats, hub: dict[str, Any]) -> Value:
    return {(share, outcome): count for share, counts in hub["names"].items() for outcome, count in counts.items()}


def _share(stats: Stats, hub: dict[str, Any]) -> Value:
    cluster = hub.get("cluster")
    share = cluster["level"]["share"] if cluster else None
    return NOTHING if share is None else float(share)


def _links(hub: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = hub.get("cluster")
    return cluster["mesh"] if cluster else []


def _mesh_links(stats: Stats, hub: dict[str, Any]) -> Value:
    return {(link["peer"], state): float(link["state"] == state) for link in _links(hub) for state in LINK_STATES}


def _per_link(key: str) -> Callable[[Stats, dict[str, Any]], Value]:
    return lambda stats, hub: {link["peer"]: float(link[key]) for link in _links(hub)}


def _registry(key: str) -> Callable[[Stats, dict[str, Any]], Value]:
    def read(stats: Stats, hub: dict[str, Any]) -> Value:
        cluster = hub.get("cluster")
        value = cluster["registry"][key] if cluster else None
        return NOTHING if value is None else float(value)

    return read


def _breaker(stats: Stats, hub: dict[str, Any]) -> Value:
    cluster = hub.get("cluster")
    return {state: float(cluster["registry"]["breaker"] == state) for state in BREAKER_STATES} if cluster else {}


def _replicas(stats: Stats, hub: dict[str, Any]) -> Value:
    cluster = hub.get("cluster")
    others = [replica for replica in cluster["replicas"] if not replica["self"]] if cluster else []
    linked = sum(replica["linked"] for replica in others)
    return {"yes": linked, "no": len(others) - linked} if cluster else {}


def _unaccounted(stats: Stats, hub: dict[str, Any]) -> Value:
    return stats.flows_opened - stats.flows_closed.total() - hub["flows"]["active"]


def _relays_unaccounted(stats: Stats, hub: dict[str, Any]) -> Value:
    return stats.relays_opened + stats.relays_resumed - stats.relays_ended - hub["flows"].get("relayed", 0)


METRICS = (
    # What the process is and how it stands.
    _gauge(
        "build_info",
        "Always 1; the labels name the release and the Python it runs on.",
        lambda s, h: {(__version__, platform.python_version()): 1},
        "version",
        "python",
    ),
    _gauge("uptime_seconds", "Seconds since the hub started.", lambda s, h: h["uptime_sec"]),
    _gauge(
        "state",
        "1 for the state the hub is in, 0 for the others.",
        lambda s, h: {state: float(h["state"] == state) for state in STATES},
        "state",
    ),
    _gauge(
        "readiness",
        "1 for what /readyz answers now, 0 for the other answers.",
        lambda s, h: {status: float(h["ready"]["status"] == status) for status in STATUSES},
        "status",
    ),
    _counter(
        "config_reloads",
        "Reloads of the configuration; a refused one leaves the old in force.",
        lambda s, h: s.config_reloads,
        "result",
    ),
    _counter(
        "name_lookups",
        "Look-ups of names, by what for (peer, redis, keys) and how they ended; hung: not within 2 s; kept: a dial "
        "that used an older answer.",
        _name_lookups,
        "share",
        "outcome",
    ),
    # Clients.
    _counter("accepted", "Client connections accepted.", lambda s, h: s.accepted, "listener"),
    _counter(
        "accept_shed",
        "Client connections turned away at accept, by what ran out or forbade them.",
        lambda s, h: s.accept_shed,
        "reason",
    ),
    _counter(
        "probes",
        "Client connections that ended before their first byte and opened nothing: a balancer's own checks"
        " (proxy_local), or clients where open_on is first_byte (silent).",
        lambda s, h: s.probes,
        "kind",
    ),
    _gauge("listener_flows", "Flows open now through a listener.", _per_listener("active"), "listener"),
    _gauge(
        "listener_held",
        "Clients waiting while every agent of the connector reconnects.",
        _per_listener("held"),
        "listener",
    ),
    _gauge(
        "listener_memory_held_bytes",
        "Bytes that wait now for flows of a listener: its share of the budget that is in use.",
        _per_listener("held_bytes"),
        "listener",
    ),
    _gauge(
        "listener_memory_own_bytes",
        "Bytes of the budget that nobody but the listener can take, by its weight.",
        _per_listener("own_bytes"),
        "listener",
    ),
    _gauge(
        "listener_accepting",
        "1 while the listener accepts, 0 while it is paused or could not be bound.",
        _per_listener("accepting"),
        "listener",
    ),
    # Flows. Conservation: opened = closed over all reasons + active.
    _counter("flows_opened", "Flows started.", lambda s, h: s.flows_opened),
    _counter(
        "flows_closed",
        "Flows ended, each under exactly one reason.",
        lambda s, h: s.flows_closed,
        "reason",
    ),
    _gauge("flows_active", "Flows started and not ended.", lambda s, h: h["flows"]["active"]),
    _gauge(
        "flows_opening",
        "Of the active: waiting for the agent's answer.",
        lambda s, h: h["flows"]["opening"],
    ),
    _gauge(
        "flows_detached",
        "Of the active: without a link, waiting to resume within the grace time.",
        lambda s, h: h["flows"]["detached"],
    ),
    _gauge("clients_held", "Clients held for an agent to come back.", lambda s, h: h["flows"]["held"]),
    _gauge(
        "flows_unaccounted",
        "Started less ended less active: 0 unless flows are lost or counted twice.",
        _unaccounted,
    ),
    _counter(
        "flows_resumed",
        "Flows that went on over a new link without losing a byte.",
        lambda s, h: s.flows_resumed,
    ),
    _counter(
        "flows_retried",
        "Opens tried again at another agent before the target saw a byte.",
        lambda s, h: s.flows_retried,
    ),
    _counter(
        "flows_by_path",
        "Flows opened for clients of this hub, by the agent's place: here, or across the mesh.",
        lambda s, h: s.flows_by_path,
        "path",
    ),
    _gauge(
        "flows_active_by_path",
        "Of the active: those whose agent is here, and those that go across the mesh.",
        lambda s, h: h["flows"].get("by_path", {}),
        "path",
    ),
    _counter(
        "flow_failovers",
        "Flows that resumed by way of another hub than before.",
        lambda s, h: s.failovers,
    ),
    _counter("opens_refused", "Opens that no agent took, by reason.", lambda s, h: s.opens_refused, "reason"),
    _histogram(
        "open_latency",
        "From the client's accept to the agent's answer that the target is connected.",
        lambda s, h: s.open_latency,
    ),
    _histogram("flow_duration", "Life of a flow, from accept to close.", lambda s, h: s.flow_duration),
    # Bytes of clients.
    _counter("client_in_bytes", "Bytes read from clients.", lambda s, h: h["bytes"]["client_in"]),
    _counter("client_out_bytes", "Bytes written to clients.", lambda s, h: h["bytes"]["client_out"]),
    _counter(
        "acknowledged_bytes",
        "Bytes read from clients that agents have acknowledged: read ones less discarded and held ones.",
        lambda s, h: h["bytes"]["acknowledged"],
    ),
    _counter(
        "discarded_bytes",
        "Bytes read from clients that could not be delivered because their flow ended.",
        lambda s, h: h["bytes"]["discarded"],
    ),
    # Tunnels and frames.
    _gauge("agents", "Agents connected and owned by this hub.", _tunnels("owned")),
    _gauge(
        "agents_standby", "Agents that keep a warm standby tunnel here and are owned elsewhere.", _tunnels("standby")
    ),
    _gauge("agents_draining", "Agents connected that take no new flows.", _tunnels("draining")),
    _gauge("agents_locked", "Agents that are locked out of the cluster, as this hub knows.", _locks),
    _gauge("connector_agents", "Agents that offer a connector.", _tunnels("connectors"), "connector"),
    _gauge(
        "tunnel_queued_frames",
        "Frames waiting to be sent, over all tunnels.",
        _tunnels("queued_frames"),
    ),
    _gauge(
        "tunnel_inflight_bytes",
        "Bytes sent and not yet acknowledged, over all tunnels.",
        _tunnels("inflight_bytes"),
    ),
    _counter("tunnels_opened", "Tunnels that finished their handshake.", lambda s, h: s.tunnels_opened),
    _counter("tunnels_closed", "Tunnels ended, by reason.", lambda s, h: s.tunnels_closed, "reason"),
    _counter(
        "handshakes_refused",
        "Handshakes refused at the edge before a token was looked at, by reason.",
        lambda s, h: s.handshakes_refused,
        "reason",
    ),
    _counter("auth_failed", "Tokens refused, by reason.", lambda s, h: s.auth_failed, "reason"),
    _histogram("tunnel_rtt", "Round trip of a ping over a tunnel.", lambda s, h: s.tunnel_rtt),
    _counter("frames", "Frames received and sent over tunnels, by type.", _frames, "direction", "type"),
    _counter(
        "link_bytes",
        "Bytes received and sent over tunnels, frame headers included.",
        lambda s, h: {"in": h["links"]["bytes_in"], "out": h["links"]["bytes_out"]},
        "direction",
    ),
    _counter(
        "cid_dedup_dropped",
        "Frames dropped because all their bytes had arrived before; replays cause them.",
        lambda s, h: h["links"]["duplicates"],
    ),
    _counter(
        "flow_gaps",
        "Holes in what came of a flow, after frames were dropped on the way: it was asked for again.",
        lambda s, h: h["links"]["gaps"],
    ),
    _counter(
        "owner_epoch_mismatch",
        "Frames rejected because they carry the epoch of an earlier owner.",
        lambda s, h: h["links"]["epoch_mismatch"],
    ),
    _counter(
        "protocol_errors",
        "Links ended because the peer broke the protocol, by the rule it broke.",
        lambda s, h: s.protocol_errors,
        "reason",
    ),
    # The mesh: links to the other hubs.
    _gauge("mesh_links", "1 for the state of the link to a peer, 0 for the others.", _mesh_links, "peer", "state"),
    _counter("mesh_frames", "Frames received and sent over mesh links, by type.", _mesh_frames, "dir", "type"),
    _histogram("mesh_rtt", "Round trip of a ping over a mesh link.", lambda s, h: s.mesh_rtt),
    _gauge(
        "mesh_link_queued_frames",
        "Frames waiting to be sent over a mesh link.",
        _per_link("queued_frames"),
        "peer",
    ),
    _gauge(
        "mesh_link_inflight_bytes",
        "Bytes sent over a mesh link and not yet acknowledged.",
        _per_link("inflight_bytes"),
        "peer",
    ),
    _gauge(
        "mesh_link_relay_frames",
        "Frames of relayed flows that wait for a mesh link.",
        _per_link("relay_frames"),
        "peer",
    ),
    _gauge(
        "mesh_link_relay_bytes",
        "Bytes of relayed flows that wait for a mesh link.",
        _per_link("relay_bytes"),
        "peer",
    ),
    _gauge("mesh_link_flows", "Flows that a mesh link carries.", _per_link("flows"), "peer"),
    _counter(
        "mesh_backpressure_drops",
        "Frames that a relay dropped at a bound of the link to a peer; their flows recover them by resuming.",
        lambda s, h: s.mesh_drops,
        "peer",
        "reason",
    ),
    _counter("mesh_link_reconnects", "Mesh links that came back after a loss.", lambda s, h: s.mesh_reconnects),
    _counter("mesh_link_errors", "Mesh links lost, and dials of peers that failed.", lambda s, h: s.mesh_errors),
    _counter(
        "mesh_handshakes_refused",
        "Handshakes of would-be peers refused, by reason.",
        lambda s, h: s.mesh_refused,
        "reason",
    ),
    # Relays: flows of other hubs' clients that this hub carries to its agents.
    _gauge(
        "flows_relayed",
        "Flows of other hubs that this hub carries to its agents now.",
        lambda s, h: h["flows"].get("relayed", 0),
    ),
    _counter("relays_opened", "Flows of other hubs taken to an agent of this hub.", lambda s, h: s.relays_opened),
    _counter("relays_resumed", "Flows of other hubs that an agent brought here.", lambda s, h: s.relays_resumed),
    _counter("relays_ended", "Relayed flows that ended or went elsewhere.", lambda s, h: s.relays_ended),
    _gauge(
        "relays_unaccounted",
        "Relays begun less ended less relayed now: 0 unless relays are lost or counted twice.",
        _relays_unaccounted,
    ),
    # Registry and ownership.
    _gauge("registry_healthy", "1 while the registry answers, 0 while it does not.", _registry("healthy")),
    _gauge(
        "registry_view_fresh",
        "1 while the registry confirms the cached view, 0 while it is the last one before Redis went.",
        _registry("fresh"),
    ),
    _gauge("registry_view_age_seconds", "Since the cached view was last confirmed.", _registry("view_age_sec")),
    _gauge(
        "registry_breaker",
        "1 for the state of the registry's circuit breaker, 0 for the others.",
        _breaker,
        "state",
    ),
    _gauge("registry_agents", "Agents in the cached view, of all hubs.", _registry("agents")),
    _gauge(
        "cluster_replicas", "Other hubs that are alive, by whether a mesh link to them stands.", _replicas, "linked"
    ),
    _histogram("registry_latency", "Time of one registry command.", lambda s, h: s.registry_latency),
    _counter("registry_commands", "Registry commands sent.", lambda s, h: s.registry_commands),
    _counter(
        "registry_errors",
        "Registry commands that failed, by reason.",
        lambda s, h: s.registry_errors,
        "reason",
    ),
    _counter(
        "ownership_claims",
        "Agents claimed, by where the epoch came from: redis, or memory while it is away.",
        lambda s, h: s.claims,
        "result",
    ),
    _counter(
        "takeovers",
        "Agents that this hub owned until it learnt that another does, by how: fenced by the registry.",
        lambda s, h: s.takeovers,
        "reason",
    ),
    _gauge(
        "level_share",
        "Agents that this hub is to have: its weight's part of the cluster's. Nothing while the hubs are not levelled.",
        _share,
    ),
    _counter(
        "level_moves",
        "Agents of this hub that were asked to move to another, and what came of it.",
        lambda s, h: s.level_moves,
        "outcome",
    ),
    _counter(
        "shadow_decisions",
        "In shadow mode: what active mode would have done, and whether what was done is the same.",
        lambda s, h: s.shadow_decisions,
        "decision",
        "agrees",
    ),
    _counter(
        "shadow_clients",
        "In shadow mode: clients by whom active mode would have served them: here, mesh or nobody.",
        lambda s, h: s.shadow_clients,
        "connector",
        "served",
    ),
    # Memory of everything that waits.
    _gauge(
        "memory_budget_bytes",
        "Bound of all bytes that wait in the process.",
        lambda s, h: h["memory"]["budget_bytes"],
    ),
    _gauge(
        "memory_held_bytes",
        "Bytes that wait now: replay, receive buffers, queues.",
        lambda s, h: h["memory"]["held_bytes"],
    ),
    _gauge(
        "memory_kernel_bytes",
        "Bytes that the kernel holds for clients, sent or not and not acknowledged; beside the budget. Sampled.",
        lambda s, h: h["memory"]["kernel_bytes"],
    ),
    _gauge(
        "memory_segments",
        "Buffers of the segment pool.",
        lambda s, h: {"in_use": h["memory"]["segments_in_use"], "free": h["memory"]["segments_free"]},
        "state",
    ),
    # The process itself.
    _histogram(
        "loop_lag",
        "How late the event loop ran a timer, sampled ten times a second.",
        lambda s, h: s.loop_lag,
    ),
    _histogram("gc_pause", "Pauses of Python's cycle collector.", lambda s, h: s.gc_pause),
    _counter("log_suppressed", "Log lines held back by the limit per event.", lambda s, h: log.suppressed()),
    _counter(
        "log_dropped",
        "Log lines lost because the log's reader stood still.",
        lambda s, h: log.dropped(),
    ),
)
