"""The dashboard's rows: fleet, mesh health, safety, throughput, listeners, agents, objectives, process."""

from __future__ import annotations

from monitoring.grafana import Panel, Row
from monitoring.objectives import AVAILABILITY, CROSS_REPLICA, MESH_RTT, MESH_RTT_SECONDS, MONTH, OBJECTIVES
from monitoring.promql import JOB


def stat(
    title: str, says: str, expr: str, unit: str = "short", most: float | None = None, least: float | None = None
) -> Panel:
    return Panel(title, says, unit, ((expr, title.lower()),), "stat", most, least)


def graph(title: str, says: str, unit: str, *series: tuple[str, str], most: float | None = None) -> Panel:
    return Panel(title, says, unit, series, most=most)


def rate(metric: str, by: str = "instance", matchers: str = "{hub}") -> str:
    return f"sum by ({by}) (rate(nowconnect_{metric}{matchers}[$__rate_interval]))"


def some(expression: str) -> str:
    """What does not happen has no line."""
    return f"{expression} > 0"


def quantiles(metric: str, by: str = "instance", matchers: str = "{hub}") -> tuple[tuple[str, str], ...]:
    buckets = rate(f"{metric}_seconds_bucket", f"{by}, le", matchers)
    return tuple((f"histogram_quantile({q}, {buckets})", f"{{{{{by}}}}} {name}") for q, name in QUANTILES)


QUANTILES = (("0.5", "p50"), ("0.99", "p99"))

FLEET = Row(
    "Fleet",
    (
        stat("Hubs ready", "Hubs whose /readyz says ready.", 'sum(nowconnect_readiness{hub, status="ready"})'),
        stat(
            "Hubs degraded",
            "They serve, and lack something; /readyz says what.",
            'sum(nowconnect_readiness{hub, status="degraded"})',
            most=1,
        ),
        stat("Agents", "Connected and owned, over all hubs.", "sum(nowconnect_agents{hub})"),
        stat("Flows", "Open now.", "sum(nowconnect_flows_active{hub})"),
        stat(
            "Listeners without an agent",
            "Their clients are held, then refused.",
            "count(nowconnect_listener_agents{hub, listener} == 0) or vector(0)",
            most=1,
        ),
        stat(
            "Alerts firing",
            "Of the chosen clusters, information alone not counted.",
            'count(ALERTS{cluster, alertname=~"Ncfast.*", alertstate="firing", severity!="info"}) or vector(0)',
            most=1,
        ),
        graph(
            "State of hubs",
            "1 for what /readyz answers.",
            "short",
            (some("nowconnect_readiness{hub}"), "{{instance}} {{status}}"),
        ),
        graph(
            "Mode",
            "off, shadow or active.",
            "short",
            (some("nowconnect_mode{hub}"), "{{instance}} {{mode}}"),
        ),
        graph(
            "Release",
            "Hubs by the release that they run.",
            "short",
            ("count by (version) (nowconnect_build_info{hub})", "{{version}}"),
        ),
        graph(
            "Flows by hub and path",
            "To agents of the same hub, and across the mesh.",
            "short",
            ("sum by (instance, path) (nowconnect_flows_active_by_path{hub})", "{{instance}} {{path}}"),
        ),
        graph(
            "Shadow decisions",
            "What active mode would have done, and whether it is what was done.",
            "cps",
            (some(rate("shadow_decisions_total", "decision, agrees")), "{{decision}}, agrees: {{agrees}}"),
        ),
        graph(
            "Shadow: clients that active would have served",
            "Of the clients of each connector, the share that an agent here or across the mesh would have got.",
            "percentunit",
            (
                'sum by (connector) (rate(nowconnect_shadow_clients_total{hub, served!="nobody"}[$__rate_interval]))'
                " / sum by (connector) (rate(nowconnect_shadow_clients_total{hub}[$__rate_interval]))",
                "{{connector}}",
            ),
        ),
        graph(
            "Configuration refused",
            "1 while what runs is not what the file says.",
            "short",
            ("nowconnect_config_refused{hub}", "{{instance}}"),
        ),
        graph("Pause at an upgrade", "Of flows that were passed.", "s", *quantiles("handover_pause")),
    ),
)

MESH = Row(
    "Mesh health",
    (
        graph(
            "Links up",
            "Of each hub, and peers that are alive without one.",
            "short",
            ('sum by (instance) (nowconnect_mesh_links{hub, state="up"})', "{{instance}} up"),
            (some('nowconnect_cluster_replicas{hub, linked="no"}'), "{{instance}} without a link"),
        ),
        graph(
            "Round trip",
            "Of pings over mesh links; the objective is 20 ms at the 95th percentile.",
            "s",
            ("cluster:ncfast_mesh_rtt_seconds:p95_5m{cluster}", "{{cluster}} p95"),
            *quantiles("mesh_rtt"),
            most=MESH_RTT_SECONDS,
        ),
        graph(
            "Losses",
            "Links that came back, errors, and would-be peers turned away.",
            "cps",
            (rate("mesh_link_reconnects_total"), "{{instance}} reconnects"),
            (rate("mesh_link_errors_total"), "{{instance}} errors"),
            (some(rate("mesh_handshakes_refused_total", "instance, reason")), "{{instance}} refused: {{reason}}"),
        ),
        graph(
            "Queues",
            "Frames that wait for a link; of relayed flows among them.",
            "short",
            ("nowconnect_mesh_link_queued_frames{hub}", "{{instance}} to {{peer}}"),
            ("nowconnect_mesh_link_relay_frames{hub}", "{{instance}} to {{peer}}, relayed"),
        ),
        graph(
            "In flight",
            "Sent and not acknowledged, by link.",
            "bytes",
            ("nowconnect_mesh_link_inflight_bytes{hub}", "{{instance}} to {{peer}}"),
        ),
        graph(
            "Flows by link, and relayed",
            "Flows that a link carries, and flows of other hubs' clients that a hub carries to its agents.",
            "short",
            ("nowconnect_mesh_link_flows{hub}", "{{instance}} to {{peer}}"),
            ("nowconnect_flows_relayed{hub}", "{{instance}} relayed"),
        ),
        graph(
            "Registry",
            "1 while it answers; the view is fresh while it may be routed by.",
            "short",
            ("nowconnect_registry_healthy{hub}", "{{instance}} healthy"),
            ("nowconnect_registry_view_fresh{hub}", "{{instance}} fresh"),
        ),
        graph("Registry latency", "Of one command.", "s", *quantiles("registry_latency")),
        graph(
            "Registry errors",
            "By reason.",
            "cps",
            (some(rate("registry_errors_total", "instance, reason")), "{{instance}} {{reason}}"),
        ),
    ),
)

SAFETY = Row(
    "Safety",
    (
        stat(
            "Flows lost in a day",
            "Open flows that ended though nobody wanted it.",
            "sum(increase(nowconnect_flows_closed_total"
            '{hub, listener, reason=~"link_lost|agent_restarted|unknown_flow|origin_lost|internal"}[1d]))',
            most=1,
        ),
        stat(
            "Frames dropped in a day",
            "By relays, at a bound of a link; resuming recovers them.",
            "sum(increase(nowconnect_mesh_backpressure_drops_total{hub}[1d]))",
            most=1,
        ),
        stat(
            "Epoch mismatches in a day",
            "Frames rejected because their owner's epoch is over.",
            "sum(increase(nowconnect_owner_epoch_mismatch_total{hub}[1d]))",
            most=1,
        ),
        stat(
            "Unaccounted",
            "Flows and relays that were lost count of: 0, or a defect.",
            "sum(abs(nowconnect_flows_unaccounted{hub})) + sum(abs(nowconnect_relays_unaccounted{hub}))",
            most=1,
        ),
        graph(
            "Survivals",
            "Flows that resumed, those that did so by way of another hub, and opens tried again.",
            "cps",
            (rate("flows_resumed_total"), "{{instance}} resumed"),
            (rate("flow_failovers_total"), "{{instance}} failed over"),
            (rate("flows_retried_total"), "{{instance}} retried"),
        ),
        graph(
            "Waiting",
            "Flows without a link, and clients held for an agent.",
            "short",
            ("nowconnect_flows_detached{hub}", "{{instance}} detached"),
            ("nowconnect_clients_held{hub}", "{{instance}} held"),
        ),
        graph(
            "Fenced, repeated, missing",
            "Frames of an epoch that is over, of bytes that had arrived, and holes that were asked for again.",
            "cps",
            (rate("owner_epoch_mismatch_total"), "{{instance}} old epoch"),
            (rate("cid_dedup_dropped_total"), "{{instance}} duplicate"),
            (rate("flow_gaps_total"), "{{instance}} gaps"),
        ),
        graph(
            "Drops",
            "What a relay dropped; flows recover it by resuming.",
            "cps",
            (rate("mesh_backpressure_drops_total", "instance, peer, reason"), "{{instance}} to {{peer}}: {{reason}}"),
        ),
        graph(
            "Protocol errors",
            "Links ended because the peer broke the protocol.",
            "cps",
            (some(rate("protocol_errors_total", "instance, reason")), "{{instance}} {{reason}}"),
        ),
        graph(
            "Discarded",
            "Bytes of clients that could not be delivered because their flow ended.",
            "Bps",
            (rate("discarded_bytes_total"), "{{instance}}"),
        ),
    ),
)

THROUGHPUT = Row(
    "Throughput",
    (
        graph("New flows", "Started.", "cps", (rate("flows_opened_total"), "{{instance}}")),
        graph(
            "Bytes of clients",
            "In: from clients. Out: to clients.",
            "Bps",
            (rate("client_in_bytes_total"), "{{instance}} in"),
            (rate("client_out_bytes_total"), "{{instance}} out"),
        ),
        graph(
            "Bytes on tunnels",
            "Frame headers included.",
            "Bps",
            (rate("link_bytes_total", "instance, direction"), "{{instance}} {{direction}}"),
        ),
        graph(
            "Frames",
            "Over tunnels and over mesh links.",
            "cps",
            (rate("frames_total", "instance, direction"), "{{instance}} tunnels {{direction}}"),
            (rate("mesh_frames_total", "instance, dir"), "{{instance}} mesh {{dir}}"),
        ),
        graph("Open latency", "From accept to the connected target.", "s", *quantiles("open_latency")),
        graph("Life of flows", "From accept to close.", "s", *quantiles("flow_duration")),
    ),
)

OF_LISTENER = "{hub, listener}"
LISTENERS = Row(
    "Listeners",
    (
        graph(
            "Agents",
            "That could serve a listener's clients now, here or across the mesh.",
            "short",
            ("nowconnect_listener_agents{hub, listener}", "{{listener}} at {{instance}}"),
        ),
        graph(
            "Flows",
            "Open now, and clients held.",
            "short",
            ("sum by (listener) (nowconnect_listener_flows{hub, listener})", "{{listener}}"),
            (some("sum by (listener) (nowconnect_listener_held{hub, listener})"), "{{listener}} held"),
        ),
        graph("Accepted", "Clients.", "cps", (rate("accepted_total", "listener", OF_LISTENER), "{{listener}}")),
        graph(
            "Bytes",
            "In: from clients. Out: to clients.",
            "Bps",
            (rate("client_in_bytes_total", "listener", OF_LISTENER), "{{listener}} in"),
            (rate("client_out_bytes_total", "listener", OF_LISTENER), "{{listener}} out"),
        ),
        graph(
            "Open latency",
            "From accept to the connected target.",
            "s",
            *quantiles("open_latency", "listener", OF_LISTENER),
        ),
        graph(
            "Refused and turned away",
            "Opens that no agent took, and clients reset at accept, by reason.",
            "cps",
            (some(rate("opens_refused_total", "listener, reason", OF_LISTENER)), "{{listener}} {{reason}}"),
            (some(rate("accept_shed_total", "listener, reason", OF_LISTENER)), "{{listener}} at accept: {{reason}}"),
        ),
        graph(
            "Ends other than in order",
            "By reason.",
            "cps",
            (
                some(rate("flows_closed_total", "listener, reason", '{hub, listener, reason!="closed"}')),
                "{{listener}} {{reason}}",
            ),
        ),
        graph(
            "Memory that waits",
            "Bytes held for a listener's flows, and what is kept for it.",
            "bytes",
            ("nowconnect_listener_memory_held_bytes{hub, listener}", "{{listener}} at {{instance}}"),
            ("nowconnect_listener_memory_own_bytes{hub, listener}", "{{listener}} at {{instance}}, its own"),
        ),
        graph(
            "Probes",
            "Connections that ended before their first byte and opened nothing.",
            "cps",
            (rate("probes_total", "instance, kind"), "{{instance}} {{kind}}"),
        ),
    ),
)

AGENTS = Row(
    "Agents",
    (
        graph(
            "Agents by hub",
            "Owned, standing by, and what a hub is to have.",
            "short",
            ("nowconnect_agents{hub}", "{{instance}} owned"),
            ("nowconnect_agents_standby{hub}", "{{instance}} standby"),
            ("nowconnect_level_share{hub}", "{{instance}} share"),
        ),
        graph(
            "Agents by connector",
            "That offer it, over the chosen hubs.",
            "short",
            ("sum by (connector) (nowconnect_connector_agents{hub})", "{{connector}}"),
        ),
        graph(
            "Agents known",
            "In each hub's view of the registry; they should agree.",
            "short",
            ("nowconnect_registry_agents{hub}", "{{instance}}"),
        ),
        graph(
            "Claims, takeovers, moves",
            "Ownership that changed.",
            "cps",
            (some(rate("ownership_claims_total", "instance, result")), "{{instance}} claimed, {{result}}"),
            (some(rate("takeovers_total", "instance, reason")), "{{instance}} {{reason}}"),
            (some(rate("level_moves_total", "instance, outcome")), "{{instance}} move {{outcome}}"),
        ),
        graph(
            "Tunnels closed",
            "By reason.",
            "cps",
            (some(rate("tunnels_closed_total", "reason")), "{{reason}}"),
        ),
        graph(
            "Agents turned away",
            "Handshakes and tokens that were refused.",
            "cps",
            (some(rate("handshakes_refused_total", "reason")), "handshake: {{reason}}"),
            (some(rate("auth_failed_total", "reason")), "token: {{reason}}"),
        ),
        graph(
            "Tokens and certificates",
            "For how long they still count: the token that ends first, and what a hub shows.",
            "s",
            ("nowconnect_agent_token_expires_seconds{hub}", "{{instance}} token"),
            ("nowconnect_certificate_expires_seconds{hub}", "{{instance}} {{use}}"),
        ),
        graph("Tunnel round trip", "Of pings.", "s", *quantiles("tunnel_rtt")),
        graph(
            "Draining and locked out",
            "Agents that take no new flows.",
            "short",
            ("nowconnect_agents_draining{hub}", "{{instance}} draining"),
            ("nowconnect_agents_locked{hub}", "{{instance}} locked out"),
        ),
        graph(
            "Tunnels",
            "Bytes sent and not acknowledged, over all tunnels.",
            "bytes",
            ("nowconnect_tunnel_inflight_bytes{hub}", "{{instance}}"),
        ),
    ),
)

SLO = Row(
    "Objectives",
    (
        *(
            stat(
                f"Budget left: {one.name.replace('_', ' ')}",
                one.says + " Of what may go wrong in thirty days so much is left.",
                f"cluster:ncfast_{one.name}:budget_left{MONTH}{{cluster}}",
                "percentunit",
                least=0,
            )
            for one in OBJECTIVES
        ),
        graph(
            "Failed flows",
            "Share of the flows that ended by a fault of the service; 0.1 % is the objective.",
            "percentunit",
            (f"{AVAILABILITY.ratio('5m')}{{cluster}}", "{{cluster}} 5 min"),
            (f"{AVAILABILITY.ratio('1h')}{{cluster}}", "{{cluster}} 1 h"),
            (f"{AVAILABILITY.ratio('1d')}{{cluster}}", "{{cluster}} 1 d"),
            most=AVAILABILITY.most,
        ),
        graph(
            "Burn rate",
            "How many times faster than evenly the month's budget goes; from 14.4 over an hour somebody is called.",
            "short",
            (f"{AVAILABILITY.ratio('1h')}{{cluster}} / {AVAILABILITY.most}", "{{cluster}} 1 h"),
            (f"{AVAILABILITY.ratio('6h')}{{cluster}} / {AVAILABILITY.most}", "{{cluster}} 6 h"),
            (f"{AVAILABILITY.ratio('3d')}{{cluster}} / {AVAILABILITY.most}", "{{cluster}} 3 d"),
            most=14.4,
        ),
        graph(
            "Failed flows by listener",
            "A second, over 5 minutes.",
            "cps",
            (
                some('cluster_listener:ncfast_flows_failed:rate5m{cluster, listener=~"$listener"}'),
                "{{listener}} of {{cluster}}",
            ),
        ),
        graph(
            "Late pings",
            "Share of the pings over the mesh that took more than 20 ms; 5 % is the objective.",
            "percentunit",
            (f"{MESH_RTT.ratio('1h')}{{cluster}}", "{{cluster}} 1 h"),
            most=MESH_RTT.most,
        ),
        graph(
            "Across the mesh",
            "Share of the flows that were opened at another hub's agent; 40 % is the objective.",
            "percentunit",
            (f"{CROSS_REPLICA.ratio('1h')}{{cluster}}", "{{cluster}} 1 h"),
            most=CROSS_REPLICA.most,
        ),
    ),
)

PROCESS = Row(
    "Process",
    (
        graph(
            "Memory that waits",
            "Of the byte budget.",
            "percentunit",
            ("nowconnect_memory_held_bytes{hub} / nowconnect_memory_budget_bytes", "{{instance}}"),
        ),
        graph(
            "Memory of the process",
            "Resident, and what the kernel holds for clients beside it.",
            "bytes",
            (f'process_resident_memory_bytes{{hub, job="{JOB}"}}', "{{instance}}"),
            ("nowconnect_memory_kernel_bytes{hub}", "{{instance}} in the kernel"),
        ),
        graph(
            "CPU",
            "Of one core.",
            "percentunit",
            (f'rate(process_cpu_seconds_total{{hub, job="{JOB}"}}[$__rate_interval])', "{{instance}}"),
        ),
        graph("Loop lag", "How late the event loop is.", "s", *quantiles("loop_lag")),
        graph(
            "Descriptors",
            "Open now.",
            "short",
            (f'process_open_fds{{hub, job="{JOB}"}}', "{{instance}}"),
        ),
        graph(
            "Log",
            "Lines held back by the limit per event, and lost because the reader stood still.",
            "cps",
            (rate("log_suppressed_total"), "{{instance}} held back"),
            (rate("log_dropped_total"), "{{instance}} lost"),
        ),
    ),
)

ROWS = (FLEET, MESH, SAFETY, THROUGHPUT, LISTENERS, AGENTS, SLO, PROCESS)
