"""Every metric family of the hub: the one table from which exposition, documentation and tests are made.

A family is read from `Stats` and from the totals of `ncfast.hub.snapshot`. No label holds a flow, an agent, a tenant or
an address; `ncfast.observe.metrics` keeps the values of each bounded.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from ncfast import __version__
from ncfast.observe import labels, log, otlp, readings
from ncfast.observe.histogram import Histogram
from ncfast.observe.readiness import STATUSES, State
from ncfast.observe.stats import Stats

__all__ = ["METRICS", "Metric", "Value"]

STATES = tuple(State)

# By the value of the one label, or by a tuple of the labels' values.
Value = float | Histogram | Mapping[Any, float] | Mapping[str, Histogram]
# What a label is known to say, and the counter is born with.
Known = tuple[str, ...] | Callable[[Stats, dict[str, Any]], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One family: how it is called, what it says, where it is read from."""

    name: str
    help: str
    read: Callable[[Stats, dict[str, Any]], Value]
    labels: tuple[str, ...] = ()
    kind: str = "gauge"
    known: tuple[Known, ...] = ()  # of a counter, for each label

    def born(self, stats: Stats, hub: dict[str, Any]) -> Iterable[tuple[str, ...]]:
        """The values of the labels with which there is a series before anything happens."""
        return (
            product(*(one if isinstance(one, tuple) else one(stats, hub) for one in self.known)) if self.known else ()
        )


def _counter(name: str, help: str, read: Callable[[Stats, dict[str, Any]], Value], **known: Known) -> Metric:
    return Metric(f"nowconnect_{name}_total", help, read, tuple(known), "counter", tuple(known.values()))


def _gauge(name: str, help: str, read: Callable[[Stats, dict[str, Any]], Value], *labels: str) -> Metric:
    return Metric(f"nowconnect_{name}", help, read, labels)


def _histogram(name: str, help: str, read: Callable[[Stats, dict[str, Any]], Value], *labels: str) -> Metric:
    return Metric(f"nowconnect_{name}_seconds", help, read, labels, "histogram")


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
        "cluster_info",
        "Always 1; the labels name the cluster, by ha.cluster, and this hub in it.",
        lambda s, h: {(h["cluster_name"], h["replica_id"]): 1},
        "cluster",
        "replica",
    ),
    _gauge(
        "mode",
        "1 for the mode in force (off without a cluster), 0 for the others.",
        lambda s, h: {mode: float(h["mode"] == mode) for mode in readings.MODES},
        "mode",
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
        result=labels.RELOADS,
    ),
    _gauge(
        "config_refused",
        "1 after a reload that was refused: what runs is not what the file says. 0 after one that was taken.",
        lambda s, h: float(s.config_refused),
    ),
    _counter(
        "handovers",
        "Upgrades: done, or cut short because the predecessor died, by the successor; failed, by a predecessor that "
        "goes on.",
        lambda s, h: s.handovers,
        result=labels.HANDOVERS,
    ),
    _gauge(
        "flows_passed",
        "Flows that a successor of this process has: neither open nor closed here.",
        lambda s, h: s.flows_passed,
    ),
    _histogram(
        "handover_pause",
        "How long a flow that was passed at an upgrade had no way.",
        lambda s, h: s.handover_pause,
    ),
    _counter(
        "name_lookups",
        "Look-ups of names, by what for (peer, redis, keys) and how they ended; hung: not within 2 s; kept: a dial "
        "that used an older answer.",
        readings.name_lookups,
        share=labels.LOOKUPS,
        outcome=labels.LOOKUP_OUTCOMES,
    ),
    # Clients.
    _counter(
        "accepted", "Client connections accepted.", readings.of_listeners("accepted"), listener=readings.listeners
    ),
    _counter(
        "accept_shed",
        "Client connections turned away at accept, by what ran out or forbade them.",
        readings.reasons("shed"),
        listener=readings.listeners,
        reason=labels.SHED,
    ),
    _counter(
        "probes",
        "Client connections that ended before their first byte and opened nothing: a balancer's own checks"
        " (proxy_local), or clients where open_on is first_byte (silent).",
        lambda s, h: s.probes,
        kind=labels.PROBES,
    ),
    _gauge(
        "listener_agents",
        "Agents that could serve a listener's clients now, here or, over the mesh, at other hubs.",
        readings.per_listener("agents"),
        "listener",
    ),
    _gauge("listener_flows", "Flows open now through a listener.", readings.per_listener("active"), "listener"),
    _gauge(
        "listener_held",
        "Clients waiting while every agent of the connector reconnects.",
        readings.per_listener("held"),
        "listener",
    ),
    _gauge(
        "listener_memory_held_bytes",
        "Bytes that wait now for flows of a listener: its share of the budget that is in use.",
        readings.per_listener("held_bytes"),
        "listener",
    ),
    _gauge(
        "listener_memory_own_bytes",
        "Bytes of the budget that nobody but the listener can take, by its weight.",
        readings.per_listener("own_bytes"),
        "listener",
    ),
    _gauge(
        "listener_accepting",
        "1 while the listener accepts, 0 while it is paused or could not be bound.",
        readings.per_listener("accepting"),
        "listener",
    ),
    # Flows. Conservation: opened = closed over all reasons + active.
    _counter("flows_opened", "Flows started.", lambda s, h: s.flows_opened),
    _counter(
        "flows_closed",
        "Flows ended, each under exactly one reason.",
        readings.reasons("flows_closed"),
        listener=readings.listeners,
        reason=labels.FLOWS_CLOSED,
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
        readings.unaccounted,
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
        path=labels.PATHS,
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
    _counter(
        "opens_refused",
        "Opens that no agent took, by reason.",
        readings.reasons("opens_refused"),
        listener=readings.listeners,
        reason=labels.OPENS_REFUSED,
    ),
    _histogram(
        "open_latency",
        "From the client's accept to the agent's answer that the target is connected.",
        lambda s, h: {name: one.open_latency for name, one in s.listeners.items()},
        "listener",
    ),
    _histogram("flow_duration", "Life of a flow, from accept to close.", lambda s, h: s.flow_duration),
    # Bytes of clients.
    _counter("client_in_bytes", "Bytes read from clients.", readings.client_bytes("in"), listener=readings.listeners),
    _counter(
        "client_out_bytes",
        "Bytes that have come for clients.",
        readings.client_bytes("out"),
        listener=readings.listeners,
    ),
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
    _gauge("agents", "Agents connected and owned by this hub.", readings.tunnels("owned")),
    _gauge(
        "agents_standby",
        "Agents that keep a warm standby tunnel here and are owned elsewhere.",
        readings.tunnels("standby"),
    ),
    _gauge("agents_draining", "Agents connected that take no new flows.", readings.tunnels("draining")),
    _gauge(
        "agent_token_expires_seconds",
        "For how long the token still counts that ends first of all connected agents'. Negative: it has ended.",
        lambda s, h: readings.NOTHING if h["token_expires_sec"] is None else h["token_expires_sec"],
    ),
    _gauge(
        "certificate_expires_seconds",
        "For how long a certificate that the hub shows still counts: at its edge, its admin edge, in the mesh.",
        lambda s, h: h["certificates"],
        "use",
    ),
    _gauge("agents_locked", "Agents that are locked out of the cluster, as this hub knows.", readings.locks),
    _gauge("connector_agents", "Agents that offer a connector.", readings.tunnels("connectors"), "connector"),
    _gauge(
        "tunnel_queued_frames",
        "Frames waiting to be sent, over all tunnels.",
        readings.tunnels("queued_frames"),
    ),
    _gauge(
        "tunnel_inflight_bytes",
        "Bytes sent and not yet acknowledged, over all tunnels.",
        readings.tunnels("inflight_bytes"),
    ),
    _counter("tunnels_opened", "Tunnels that finished their handshake.", lambda s, h: s.tunnels_opened),
    _counter(
        "tunnels_closed", "Tunnels ended, by reason.", lambda s, h: s.tunnels_closed, reason=labels.TUNNELS_CLOSED
    ),
    _counter(
        "handshakes_refused",
        "Handshakes refused at the edge before a token was looked at, by reason.",
        lambda s, h: s.handshakes_refused,
        reason=labels.HANDSHAKES_REFUSED,
    ),
    _counter("auth_failed", "Tokens refused, by reason.", lambda s, h: s.auth_failed, reason=labels.AUTH_FAILED),
    _histogram("tunnel_rtt", "Round trip of a ping over a tunnel.", lambda s, h: s.tunnel_rtt),
    _counter(
        "frames",
        "Frames received and sent over tunnels, by type.",
        readings.frames,
        direction=labels.DIRECTIONS,
        type=labels.FRAMES,
    ),
    _counter(
        "link_bytes",
        "Bytes received and sent over tunnels, frame headers included.",
        lambda s, h: {"in": h["links"]["bytes_in"], "out": h["links"]["bytes_out"]},
        direction=labels.DIRECTIONS,
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
        reason=labels.PROTOCOL_ERRORS,
    ),
    # The mesh: links to the other hubs.
    _gauge(
        "mesh_links", "1 for the state of the link to a peer, 0 for the others.", readings.mesh_links, "peer", "state"
    ),
    _counter(
        "mesh_frames",
        "Frames received and sent over mesh links, by type.",
        readings.mesh_frames,
        dir=labels.DIRECTIONS,
        type=labels.FRAMES,
    ),
    _histogram("mesh_rtt", "Round trip of a ping over a mesh link.", lambda s, h: s.mesh_rtt),
    _gauge(
        "mesh_link_queued_frames",
        "Frames waiting to be sent over a mesh link.",
        readings.per_link("queued_frames"),
        "peer",
    ),
    _gauge(
        "mesh_link_inflight_bytes",
        "Bytes sent over a mesh link and not yet acknowledged.",
        readings.per_link("inflight_bytes"),
        "peer",
    ),
    _gauge(
        "mesh_link_relay_frames",
        "Frames of relayed flows that wait for a mesh link.",
        readings.per_link("relay_frames"),
        "peer",
    ),
    _gauge(
        "mesh_link_relay_bytes",
        "Bytes of relayed flows that wait for a mesh link.",
        readings.per_link("relay_bytes"),
        "peer",
    ),
    _gauge("mesh_link_flows", "Flows that a mesh link carries.", readings.per_link("flows"), "peer"),
    _counter(
        "mesh_backpressure_drops",
        "Frames that a relay dropped: for a peer at a bound of its link (queue), or from it for an agent whose tunnel"
        " was gone (away); their flows recover them by resuming.",
        lambda s, h: s.mesh_drops,
        peer=readings.linked,
        reason=labels.MESH_DROPS,
    ),
    _counter("mesh_link_reconnects", "Mesh links that came back after a loss.", lambda s, h: s.mesh_reconnects),
    _counter("mesh_link_errors", "Mesh links lost, and dials of peers that failed.", lambda s, h: s.mesh_errors),
    _counter(
        "mesh_handshakes_refused",
        "Handshakes of would-be peers refused, by reason.",
        lambda s, h: s.mesh_refused,
        reason=labels.MESH_REFUSED,
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
        readings.relays_unaccounted,
    ),
    # Registry and ownership.
    _gauge("registry_healthy", "1 while the registry answers, 0 while it does not.", readings.registry("healthy")),
    _gauge(
        "registry_view_fresh",
        "1 while the registry confirms the cached view, 0 while it is the last one before Redis went.",
        readings.registry("fresh"),
    ),
    _gauge("registry_view_age_seconds", "Since the cached view was last confirmed.", readings.registry("view_age_sec")),
    _gauge(
        "registry_breaker",
        "1 for the state of the registry's circuit breaker, 0 for the others.",
        readings.breaker,
        "state",
    ),
    _gauge("registry_agents", "Agents in the cached view, of all hubs.", readings.registry("agents")),
    _gauge(
        "cluster_replicas",
        "Other hubs that are alive, by whether a mesh link to them stands.",
        readings.replicas,
        "linked",
    ),
    _histogram("registry_latency", "Time of one registry command.", lambda s, h: s.registry_latency),
    _counter("registry_commands", "Registry commands sent.", lambda s, h: s.registry_commands),
    _counter(
        "registry_errors",
        "Registry commands that failed, by reason.",
        lambda s, h: s.registry_errors,
        reason=labels.REGISTRY_ERRORS,
    ),
    _counter(
        "ownership_claims",
        "Agents claimed, by where the epoch came from: redis, or memory while it is away.",
        lambda s, h: s.claims,
        result=labels.CLAIMS,
    ),
    _counter(
        "takeovers",
        "Agents that this hub owned until it learnt that another does, by how: fenced by the registry.",
        lambda s, h: s.takeovers,
        reason=labels.TAKEOVERS,
    ),
    _gauge(
        "level_share",
        "Agents that this hub is to have: its weight's part of the cluster's. Nothing while the hubs are not levelled.",
        readings.level_share,
    ),
    _counter(
        "level_moves",
        "Agents of this hub that were asked to move to another, and what came of it.",
        lambda s, h: s.level_moves,
        outcome=labels.LEVEL_MOVES,
    ),
    _counter(
        "shadow_decisions",
        "In shadow mode: what active mode would have done, and whether what was done is the same.",
        lambda s, h: s.shadow_decisions,
        decision=labels.DECISIONS,
        agrees=labels.AGREES,
    ),
    _counter(
        "shadow_clients",
        "In shadow mode: clients by whom active mode would have served them: here, mesh or nobody.",
        lambda s, h: s.shadow_clients,
        connector=readings.connectors,
        served=labels.SERVED,
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
    _counter(
        "otlp_records",
        "Log lines for a collector (`otlp`), by what became of them; dropped: too many waited.",
        lambda s, h: otlp.results(),
        result=otlp.RESULTS,
    ),
)
