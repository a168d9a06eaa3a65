"""Every alert: when it fires, how bad it is, what it means, and which page says what to do."""

from __future__ import annotations

from dataclasses import dataclass

from monitoring.objectives import CROSS_REPLICA, FAILED, MESH_RTT_SECONDS, burns
from monitoring.promql import JOB, among, of_cluster, of_hub_or_agent

TOKEN_LEFT = 600  # seconds; tokens live for a day at most, and one for an hour is renewed by then
CERTIFICATE_LEFT = 14 * 86400  # seconds; what is renewed by itself is so at a third of its 90 days, mostly
# Ends of flows that had been opened, out of `FAILED`.
LOST = ("link_lost", "agent_restarted", "unknown_flow", "origin_lost", "internal")
assert set(LOST) <= set(FAILED)


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule. `hold` is how long the expression must be true; `page` is in docs/."""

    name: str
    expr: str
    severity: str
    page: str
    summary: str
    description: str
    hold: str = ""


def grew(metric: str, by: str, window: str, matchers: str = "", above: str = "0") -> str:
    """A counter has grown by more in the window."""
    return f"sum by (job, instance{by}) (increase({metric}{matchers}[{window}])) > {above}"


def quantile(q: float, metric: str) -> str:
    """Of a histogram of seconds, by hub."""
    return f"histogram_quantile({q:g}, sum by (job, instance, le) (rate({metric}_bucket[5m])))"


HEALTHY = "and on (job, instance) min_over_time(nowconnect_registry_healthy[5m]) == 1"  # else it is NcfastRegistryAway

SERVICE = (
    Alert(
        "NcfastHubDown",
        f'(up{{job="{JOB}"}} == 0)\n'
        "* on (job, instance) group_left (cluster)"
        " topk by (job, instance) (1, last_over_time(nowconnect_cluster_info[1d]))\n"
        f'or on (job, instance) up{{job="{JOB}"}} == 0',
        "critical",
        "runbooks/listener.md",
        "Hub {{ $labels.instance }} does not answer at its admin edge.",
        "The process is gone, frozen, or cannot be reached. Its clients' flows are lost if it is gone; its agents go to"
        " other hubs by themselves. Exit code 78 says that its configuration is at fault.",
        "1m",
    ),
    Alert(
        "NcfastNotServing",
        of_cluster('nowconnect_readiness{status="not_serving"} == 1'),
        "critical",
        "runbooks/listener.md",
        "Hub {{ $labels.instance }} runs and does not serve.",
        "It has not finished its start. It waits for Redis, for twice `redis_timeout_sec` (four times, by Sentinel) at"
        " most; where it does not go on then, its log since the start says why.",
        "15s",
    ),
    Alert(
        "NcfastDegraded",
        of_cluster('nowconnect_readiness{status="degraded"} == 1'),
        "warning",
        "runbooks/listener.md",
        "Hub {{ $labels.instance }} is degraded; /readyz and `ncfast status` say why.",
        "It serves, and lacks something: registry, mesh, keys, memory, descriptors or a listener. Where another alert"
        " names the cause, this one is inhibited.",
        "2m",
    ),
    Alert(
        "NcfastListenerWithoutAgent",
        of_cluster("nowconnect_listener_agents == 0"),
        "critical",
        "runbooks/site-down.md",
        "No agent serves listener {{ $labels.listener }} of {{ $labels.instance }}.",
        "The site is down or cut off, its token has run out, or the connector is not in its scope. Clients are held"
        " for a while, then refused.",
        "1m",
    ),
    Alert(
        "NcfastClientsRefused",
        of_cluster(grew("nowconnect_opens_refused_total", ", listener, reason", "5m")),
        "warning",
        "runbooks/listener.md",
        "Listener {{ $labels.listener }} of {{ $labels.instance }} refuses clients ({{ $labels.reason }}).",
        "{{ $value | humanize }} clients in five minutes came to the listener and found no agent that took them.",
    ),
    Alert(
        "NcfastClientsTurnedAway",
        of_cluster(
            grew(
                "nowconnect_accept_shed_total",
                ", listener, reason",
                "5m",
                '{reason=~"fd|memory|flow_cap|listener_cap|source_cap|rate"}',
            )
        ),
        "warning",
        "runbooks/capacity.md",
        "Listener {{ $labels.listener }} of {{ $labels.instance }} turns clients away ({{ $labels.reason }}).",
        "{{ $value | humanize }} clients in five minutes were reset at accept, at a limit.",
    ),
    Alert(
        "NcfastListenerPaused",
        of_cluster(
            'nowconnect_listener_accepting == 0 unless on (job, instance) nowconnect_readiness{status="draining"} == 1'
        ),
        "critical",
        "runbooks/listener.md",
        "Listener {{ $labels.listener }} of {{ $labels.instance }} does not accept.",
        "It could not be bound, or descriptors have run out: `listener_down` or `client_shed` in the log.",
        "1m",
    ),
    Alert(
        "NcfastFlowsLost",
        of_cluster(grew("nowconnect_flows_closed_total", ", listener, reason", "10m", f'{{reason=~"{among(LOST)}"}}')),
        "warning",
        "runbooks/flows-lost.md",
        "Flows of listener {{ $labels.listener }} were lost on {{ $labels.instance }} ({{ $labels.reason }}).",
        "{{ $value | humanize }} open flows in ten minutes ended though neither client nor target wanted it.",
    ),
    Alert(
        "NcfastFlowsDetached",
        of_cluster("nowconnect_flows_detached > 0"),
        "warning",
        "runbooks/flows-lost.md",
        "{{ $value }} flows on {{ $labels.instance }} wait for their agent.",
        "Their tunnel or mesh link is gone, and the next has not come. They are lost when `flow_grace_sec` (30 s by"
        " default) is over, so this is told after half of it.",
        "15s",
    ),
    Alert(
        "NcfastAgentFlapping",
        of_cluster(grew("nowconnect_tunnels_closed_total", "", "10m", '{reason="superseded"}', "5")),
        "warning",
        "runbooks/site-down.md",
        "Agents of {{ $labels.instance }} are superseded again and again; two processes may share one agent id.",
        "`agent_superseded` in the log names the agent. Each of the two takes the tunnel from the other.",
    ),
    Alert(
        "NcfastTokensRefused",
        of_cluster(grew("nowconnect_auth_failed_total", ", reason", "10m", '{reason!="missing"}', "5")),
        "warning",
        "runbooks/secrets.md",
        "Hub {{ $labels.instance }} refuses tokens ({{ $labels.reason }}).",
        "An agent's token has run out, the clocks differ, or the keys were changed at one end. `auth_failed` in the"
        " log says from where.",
    ),
    Alert(
        "NcfastTokenEndsSoon",
        of_hub_or_agent(f"nowconnect_agent_token_expires_seconds < {TOKEN_LEFT}"),
        "warning",
        "runbooks/secrets.md",
        "A token at {{ $labels.instance }} ends within ten minutes, and no other is there.",
        "Where that is a hub, its `ncfast status` shows whose token it is (TOKEN). When it has ended the site gets no"
        " new connections, and soon has no tunnel: whatever renews the file has failed.",
        "1m",
    ),
    Alert(
        "NcfastCertificateEndsSoon",
        of_hub_or_agent(f"nowconnect_certificate_expires_seconds < {CERTIFICATE_LEFT}"),
        "warning",
        "runbooks/certificates.md",
        "The certificate for {{ $labels.use }} of {{ $labels.instance }} ends in {{ $value | humanizeDuration }}.",
        "It is the one in force: a file that was replaced counts when it has been read again. What stands keeps"
        " standing when it has ended, and nothing new is made with it.",
        "5m",
    ),
    Alert(
        "NcfastConfigRefused",
        of_cluster("nowconnect_config_refused == 1"),
        "warning",
        "runbooks/rollback.md",
        "Hub {{ $labels.instance }} has refused its new configuration and keeps the old one.",
        "`config_refused` in the log names the problems; `ncfast check FILE` finds them again. It fires until a reload"
        " is taken: until then a restart would not come up.",
    ),
    Alert(
        "NcfastUpgradeFailed",
        of_cluster(grew("nowconnect_handovers_total", ", result", "10m", '{result!="done"}')),
        "warning",
        "runbooks/rollback.md",
        "An upgrade of hub {{ $labels.instance }} has not gone as it should ({{ $labels.result }}).",
        "failed: the old process goes on as before, and `upgrade_failed` in its log says why. cut: the old process died"
        " in the middle, and what it had not passed has ended.",
    ),
)

CLUSTER = (
    Alert(
        "NcfastMeshLinkMissing",
        of_cluster('nowconnect_cluster_replicas{linked="no"} > 0'),
        "critical",
        "runbooks/mesh-link-down.md",
        "Hub {{ $labels.instance }} has had no link to {{ $value }} living hubs for 60 s.",
        "The registry says that they are alive. Clients there do not reach agents here, nor the other way round.",
        "1m",
    ),
    Alert(
        "NcfastMeshFlapping",
        of_cluster(grew("nowconnect_mesh_link_reconnects_total", "", "10m", "", "5")),
        "warning",
        "runbooks/mesh-link-down.md",
        "Mesh links of {{ $labels.instance }} are lost and come back.",
        "The network between the hubs, or a hub that is starved of CPU (see NcfastLoopLag).",
    ),
    Alert(
        "NcfastMeshDrops",
        of_cluster(grew("nowconnect_mesh_backpressure_drops_total", ", peer, reason", "5m")),
        "warning",
        "runbooks/flows-lost.md",
        "Hub {{ $labels.instance }} has dropped relayed frames of {{ $labels.peer }} ({{ $labels.reason }}).",
        "queue: the link to it cannot take what is relayed over it. away: what came from it was for an agent whose"
        " tunnel was gone. Their flows recover them by resuming, and are slower for it; no byte is lost.",
    ),
    Alert(
        "NcfastEpochMismatch",
        of_cluster(grew("nowconnect_owner_epoch_mismatch_total", "", "5m")),
        "warning",
        "runbooks/flows-lost.md",
        "Hub {{ $labels.instance }} has rejected frames of an owner whose epoch is over.",
        "Some after a failover or a freeze are the fence at work. If they keep coming, a hub is frozen or cut from the"
        " registry and does not know that its agents have moved.",
    ),
    Alert(
        "NcfastMeshStrangers",
        of_cluster(grew("nowconnect_mesh_handshakes_refused_total", ", reason", "10m", "", "5")),
        "warning",
        "runbooks/certificates.md",
        "Hub {{ $labels.instance }} turns away would-be peers ({{ $labels.reason }}).",
        "`mesh_refused` in the log says who: a hub of ours with an expired certificate or another secret, or a"
        " scanner.",
    ),
    Alert(
        "NcfastNoStandby",
        "sum by (cluster) ("
        + of_cluster("nowconnect_agents")
        + ")\n> sum by (cluster) ("
        + of_cluster("nowconnect_agents_standby")
        + ")\nand on (cluster) max by (cluster) ("
        + of_cluster('nowconnect_cluster_replicas{linked="yes"}')
        + ") > 0",
        "info",
        "runbooks/site-down.md",
        "Some agents of {{ $labels.cluster }} have no standby; losing their hub costs them a reconnect.",
        "Their files list too few hubs, or one cannot be reached: `connect_failed` with role `standby` in the agent's"
        " log.",
        "10m",
    ),
    Alert(
        "NcfastShadowDisagrees",
        of_cluster(grew("nowconnect_shadow_decisions_total", ", decision", "10m", '{agrees="no"}')),
        "info",
        "runbooks/enablement.md",
        "Active mode would have served clients of {{ $labels.instance }} otherwise ({{ $labels.decision }}).",
        "mesh: it would have served where nobody did, which is what it is for. local: the registry does not know our"
        " agents as we do; find out before you go on.",
    ),
)

REGISTRY = (
    Alert(
        "NcfastRegistryAway",
        of_cluster("nowconnect_registry_healthy == 0"),
        "critical",
        "runbooks/redis-degraded.md",
        "Hub {{ $labels.instance }} does not reach the registry; of other hubs' agents it knows what it last heard.",
        "Open flows go on, new clients go by the last view; an agent that moves now is not found by other hubs.",
        "15s",
    ),
    Alert(
        "NcfastRegistrySlow",
        of_cluster(f"{quantile(0.99, 'nowconnect_registry_latency_seconds')} > 0.1\n{HEALTHY}"),
        "warning",
        "runbooks/redis-degraded.md",
        "Registry commands of {{ $labels.instance }} take {{ $value | humanizeDuration }} (p99).",
        "A third of their time limit. Redis' load, `SLOWLOG`, or the network.",
        "10m",
    ),
    Alert(
        "NcfastRegistryErrors",
        of_cluster(f"({grew('nowconnect_registry_errors_total', ', reason', '5m', '', '10')})\n{HEALTHY}"),
        "warning",
        "runbooks/redis-degraded.md",
        "Registry commands of {{ $labels.instance }} fail ({{ $labels.reason }}).",
        "Redis answers, and refuses: unauthorized and *_denied are its ACL, read_only is a replica in the master's"
        " place, out_of_memory its maxmemory.",
    ),
    Alert(
        "NcfastViewsDiffer",
        "max by (cluster) ("
        + of_cluster("nowconnect_registry_agents")
        + ")\n- min by (cluster) ("
        + of_cluster("nowconnect_registry_agents")
        + ") > 0",
        "warning",
        "runbooks/redis-degraded.md",
        "Hubs of {{ $labels.cluster }} do not agree on how many agents there are.",
        "One of them does not hear the registry, or there are two registries.",
        "2m",
    ),
)

PROCESS = (
    Alert(
        "NcfastMemory",
        # Of many listeners one alone can have no more than half and its own part.
        of_cluster("nowconnect_memory_held_bytes / nowconnect_memory_budget_bytes > 0.4"),
        "warning",
        "runbooks/memory.md",
        "Hub {{ $labels.instance }} holds {{ $value | humanizePercentage }} of its byte budget.",
        "Slow readers fill it. `held_bytes` of the listeners in /status says whose.",
        "5m",
    ),
    Alert(
        "NcfastDescriptors",
        of_cluster(f'process_open_fds{{job="{JOB}"}} / process_max_fds > 0.8'),
        "warning",
        "runbooks/capacity.md",
        "Hub {{ $labels.instance }} uses {{ $value | humanizePercentage }} of its descriptors.",
        "When they run out its listeners pause. Raise the limit of the unit or container.",
        "5m",
    ),
    Alert(
        "NcfastLoopLag",
        of_cluster(f"{quantile(0.99, 'nowconnect_loop_lag_seconds')} > 0.1"),
        "warning",
        "runbooks/capacity.md",
        "The event loop of {{ $labels.instance }} is late by {{ $value | humanizeDuration }} (p99).",
        "CPU is short, or something blocks the loop: `loop_stuck` in the log shows where.",
        "5m",
    ),
    Alert(
        "NcfastFlowsUnaccounted",
        of_cluster("nowconnect_flows_unaccounted != 0 or nowconnect_relays_unaccounted != 0"),
        "warning",
        "runbooks/flows-lost.md",
        "Hub {{ $labels.instance }} has lost count of flows, which is a defect.",
        "Report it, with the log of the time at which it began.",
        "5m",
    ),
)

OBJECTIVES = (
    Alert(
        "NcfastMeshSlow",
        f"cluster:ncfast_mesh_rtt_seconds:p95_5m > {MESH_RTT_SECONDS:g}",
        "warning",
        "runbooks/mesh-link-down.md",
        "Pings between the hubs of {{ $labels.cluster }} take {{ $value | humanizeDuration }} (p95).",
        "The objective is 20 ms. Flows across the mesh are slower by as much, on every turn.",
        "5m",
    ),
    Alert(
        "NcfastCrossReplicaShare",
        f"{CROSS_REPLICA.ratio('1h')} > {CROSS_REPLICA.most:g}",
        "info",
        "slo.md",
        "{{ $value | humanizePercentage }} of the flows of {{ $labels.cluster }} cross the mesh.",
        "The objective is 40 %. Clients come to other hubs than their agents: put the agents of busy connectors where"
        " the clients are, or level them.",
        "15m",
    ),
    Alert(
        "NcfastBudgetBurnsFast",
        burns(("1h", "5m", 14.4), ("6h", "30m", 6)),
        "critical",
        "slo.md",
        "{{ $labels.cluster }} fails its clients so fast that the month's error budget is gone in days.",
        "{{ $value | humanizePercentage }} of the flows fail; 0.1 % is what the objective allows. At this rate"
        " 2 % of the month's budget goes in an hour, or 5 % in six.",
    ),
    Alert(
        "NcfastBudgetBurnsSlowly",
        burns(("1d", "2h", 3), ("3d", "6h", 1)),
        "warning",
        "slo.md",
        "{{ $labels.cluster }} fails its clients so often that the month's error budget will not last.",
        "{{ $value | humanizePercentage }} of the flows fail; 0.1 % is what the objective allows. At this rate"
        " 10 % of the month's budget goes in three days, or in one.",
    ),
)

GROUPS = {"service": SERVICE, "cluster": CLUSTER, "registry": REGISTRY, "process": PROCESS}
ALERTS = (*(alert for group in GROUPS.values() for alert in group), *OBJECTIVES)

# (source, targets, equal): while the source fires, the targets of the same labels are not told. Whose cause it is.
INHIBITIONS = (
    (
        "NcfastRegistryAway",
        (
            *("NcfastDegraded", "NcfastRegistrySlow", "NcfastRegistryErrors", "NcfastViewsDiffer", "NcfastNoStandby"),
            *("NcfastMeshLinkMissing", "NcfastMeshFlapping", "NcfastMeshDrops", "NcfastEpochMismatch"),
            "NcfastShadowDisagrees",
        ),
        ("cluster",),
    ),
    (
        "NcfastHubDown",
        (
            *("NcfastMeshLinkMissing", "NcfastMeshFlapping", "NcfastMeshDrops", "NcfastEpochMismatch"),
            *("NcfastNoStandby", "NcfastViewsDiffer", "NcfastFlowsDetached", "NcfastDegraded"),
        ),
        ("cluster",),
    ),
    ("NcfastMeshLinkMissing", ("NcfastMeshFlapping", "NcfastMeshDrops", "NcfastEpochMismatch"), ("cluster",)),
    ("NcfastMeshLinkMissing", ("NcfastDegraded",), ("cluster", "instance")),
    ("NcfastListenerPaused", ("NcfastDegraded", "NcfastDescriptors"), ("cluster", "instance")),
    ("NcfastMemory", ("NcfastDegraded", "NcfastClientsTurnedAway"), ("cluster", "instance")),
    ("NcfastListenerWithoutAgent", ("NcfastClientsRefused",), ("cluster", "instance", "listener")),
    ("NcfastListenerWithoutAgent", ("NcfastFlowsDetached",), ("cluster", "instance")),
    ("NcfastBudgetBurnsFast", ("NcfastBudgetBurnsSlowly",), ("cluster",)),
)
