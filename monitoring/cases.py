"""Rule tests for `promtool test rules`: of every alert, what makes it fire, and that it clears.

Samples come every 15 s from hubs a and b of the cluster east, and hub c of the cluster west.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monitoring.alerts import ALERTS, OBJECTIVES
from monitoring.rules import HEAD, dump

TEXT = """\
# promtool test rules config/prometheus/*.test.yaml"""

PER_MINUTE = 4  # samples
LAST = 40  # minutes for which there are samples, if a case does not say otherwise
HUBS = {"a": "east", "b": "east", "c": "west"}
SLO = {alert.name for alert in OBJECTIVES}
SEVERITY = {alert.name: alert.severity for alert in ALERTS}


@dataclass(frozen=True, slots=True)
class Case:
    """`series` by metric and matchers of hub a, or with an instance of their own; `fires` at one time (in minutes) with
    these labels beside those of hub a, and no longer at another. Without `fires` it must be quiet then."""

    alert: str
    series: dict[str, str]
    at: float
    quiet: float | None
    labels: dict[str, str] | None
    why: str = ""


def at_once(number: int, minute: int = 5, last: int = LAST) -> str:
    """A counter: so many in one scrape, and nothing before or after."""
    return f"0+0x{minute * PER_MINUTE - 1} {number}+0x{(last - minute) * PER_MINUTE}"


def between(first: int, after: int, value: float, other: float = 0, last: int = LAST) -> str:
    """A gauge that has a value from one minute to another."""
    parts = [f"{value:g}+0x{(after - first) * PER_MINUTE - 1}", f"{other:g}+0x{(last - after) * PER_MINUTE}"]
    return " ".join([f"{other:g}+0x{first * PER_MINUTE - 1}"] * bool(first) + parts)


def steady(number: float, last: int = LAST) -> str:
    """A counter that grows by so much in each scrape."""
    return f"0+{number:g}x{last * PER_MINUTE}"


def growing(number: float, first: int, after: int, last: int = LAST) -> str:
    """A counter that grows so from one minute to another alone."""
    end = (after - first) * PER_MINUTE
    before = f"0+0x{first * PER_MINUTE - 1} " if first else ""
    return f"{before}0+{number:g}x{end} {number * end:g}+0x{(last - after) * PER_MINUTE}"


def histogram(name: str, slow: str, bound: str) -> dict[str, str]:
    """Nothing is below the bound while `slow` grows."""
    return {f'{name}_bucket{{le="{bound}"}}': "0+0x1000", f'{name}_bucket{{le="2.5"}}': slow} | {
        f'{name}_bucket{{le="+Inf"}}': slow,
        f"{name}_count": slow,
    }


def flows(well: str, failed: str) -> dict[str, str]:
    """A listener's, as they end."""
    return {
        'nowconnect_flows_closed_total{listener="ldap", reason="closed"}': well,
        'nowconnect_flows_closed_total{listener="ldap", reason="hold_timeout"}': failed,
        'nowconnect_accept_shed_total{listener="ldap", reason="memory"}': "0+0x4000",
    }


ONE = {"listener": "ldap"}
CASES = (
    Case("NcfastHubDown", {"up": between(5, 10, 0, 1)}, 7, 12, {}),
    Case(
        "NcfastNotServing",
        {'nowconnect_readiness{status="not_serving"}': between(5, 10, 1)},
        7,
        12,
        {"status": "not_serving"},
    ),
    Case(
        "NcfastNotServing",
        {'nowconnect_readiness{status="not_serving"}': f"0+0x19 1 1 1 0+0x{30 * PER_MINUTE}"},
        5.5,
        7,
        {"status": "not_serving"},
        "a start waits for Redis for 40 s at most, with the longest of time limits",
    ),
    Case(
        "NcfastDegraded", {'nowconnect_readiness{status="degraded"}': between(5, 10, 1)}, 8, 12, {"status": "degraded"}
    ),
    Case(
        "NcfastListenerWithoutAgent", {'nowconnect_listener_agents{listener="ldap"}': between(5, 10, 0, 1)}, 7, 12, ONE
    ),
    Case(
        "NcfastClientsRefused",
        {'nowconnect_opens_refused_total{listener="ldap", reason="no_agent"}': at_once(1)},
        6,
        12,
        ONE | {"reason": "no_agent"},
        "the first one ever",
    ),
    Case(
        "NcfastClientsTurnedAway",
        {'nowconnect_accept_shed_total{listener="ldap", reason="memory"}': at_once(3)},
        6,
        12,
        ONE | {"reason": "memory"},
    ),
    Case(
        "NcfastClientsTurnedAway",
        {'nowconnect_accept_shed_total{listener="ldap", reason="acl"}': steady(3)},
        6,
        None,
        None,
        "those who may not come are not for want of room",
    ),
    Case(
        "NcfastListenerPaused",
        {
            'nowconnect_listener_accepting{listener="ldap"}': between(5, 10, 0, 1),
            'nowconnect_readiness{status="draining"}': between(0, 40, 0),
        },
        7,
        12,
        ONE,
    ),
    Case(
        "NcfastListenerPaused",
        {
            'nowconnect_listener_accepting{listener="ldap"}': between(5, 30, 0, 1),
            'nowconnect_readiness{status="draining"}': between(5, 30, 1),
        },
        7,
        None,
        None,
        "a hub that drains accepts nobody, by intent",
    ),
    Case(
        "NcfastFlowsLost",
        {'nowconnect_flows_closed_total{listener="ldap", reason="link_lost"}': at_once(100)},
        6,
        17,
        ONE | {"reason": "link_lost"},
        "a hundred at once, then quiet",
    ),
    Case(
        "NcfastFlowsDetached",
        {"nowconnect_flows_detached": f"0+0x19 5 5 0+0x{30 * PER_MINUTE}"},
        5.25,
        6,
        {},
        "within the default grace",
    ),
    Case("NcfastAgentFlapping", {'nowconnect_tunnels_closed_total{reason="superseded"}': at_once(9)}, 6, 17, {}),
    Case(
        "NcfastTokensRefused",
        {'nowconnect_auth_failed_total{reason="expired"}': at_once(9)},
        6,
        17,
        {"reason": "expired"},
    ),
    Case(
        "NcfastUpgradeFailed",
        {'nowconnect_handovers_total{result="failed"}': at_once(1)},
        6,
        25,
        {"result": "failed"},
    ),
    Case(
        "NcfastConfigRefused", {"nowconnect_config_refused": between(5, 30, 1)}, 29, 31, {}, "for as long as it is so"
    ),
    Case(
        "NcfastMeshLinkMissing",
        {'nowconnect_cluster_replicas{linked="no"}': between(5, 10, 1)},
        7,
        12,
        {"linked": "no"},
    ),
    Case(
        "NcfastMeshLinkMissing",
        {'nowconnect_cluster_replicas{linked="no"}': f"0+0x19 1 1 1 0+0x{30 * PER_MINUTE}"},
        5.75,
        None,
        None,
        "45 s are no 60",
    ),
    Case("NcfastMeshFlapping", {"nowconnect_mesh_link_reconnects_total": at_once(9)}, 6, 17, {}),
    Case(
        "NcfastMeshSlow",
        histogram("nowconnect_mesh_rtt_seconds", growing(4, 0, 15), "0.02"),
        10,
        25,
        {"instance": "", "job": ""},
    ),
    Case(
        "NcfastMeshDrops",
        {'nowconnect_mesh_backpressure_drops_total{peer="hub-b", reason="queue"}': at_once(1)},
        6,
        12,
        {"peer": "hub-b", "reason": "queue"},
        "any drop",
    ),
    Case("NcfastEpochMismatch", {"nowconnect_owner_epoch_mismatch_total": at_once(1)}, 6, 12, {}, "any mismatch"),
    Case("NcfastTokenEndsSoon", {"nowconnect_agent_token_expires_seconds": between(5, 10, 500, 3600)}, 7, 12, {}),
    Case(
        "NcfastTokenEndsSoon",
        {'nowconnect_agent_token_expires_seconds{instance="site-1"}': between(5, 10, -60, 3600)},
        7,
        12,
        {"instance": "site-1", "cluster": ""},
        "an agent's own",
    ),
    Case(
        "NcfastTokenEndsSoon",
        {"nowconnect_agent_token_expires_seconds": "720+0x160"},
        30,
        None,
        None,
        "a fifth of an hour is when a token of an hour is renewed",
    ),
    Case(
        "NcfastCertificateEndsSoon",
        {'nowconnect_certificate_expires_seconds{use="mesh"}': between(5, 15, 13 * 86400, 90 * 86400)},
        12,
        20,
        {"use": "mesh"},
    ),
    Case(
        "NcfastCertificateEndsSoon",
        {'nowconnect_certificate_expires_seconds{instance="site-1", use="client"}': between(5, 15, -60, 90 * 86400)},
        12,
        20,
        {"instance": "site-1", "cluster": "", "use": "client"},
        "an agent's, which has ended",
    ),
    Case(
        "NcfastMeshStrangers",
        {'nowconnect_mesh_handshakes_refused_total{reason="secret"}': at_once(9)},
        6,
        17,
        {"reason": "secret"},
    ),
    Case(
        "NcfastNoStandby",
        {
            'nowconnect_agents{instance="a"}': between(0, 40, 2),
            'nowconnect_agents{instance="b"}': between(0, 40, 3),
            'nowconnect_agents_standby{instance="a"}': between(5, 20, 2, 3),
            'nowconnect_agents_standby{instance="b"}': between(0, 40, 2),
            'nowconnect_agents{instance="c"}': between(0, 40, 5),
            'nowconnect_agents_standby{instance="c"}': between(0, 40, 5),
            'nowconnect_cluster_replicas{linked="yes", instance="a"}': between(0, 40, 1),
            'nowconnect_cluster_replicas{linked="yes", instance="c"}': between(0, 40, 1),
        },
        17,
        22,
        {"instance": "", "job": ""},
        "of one cluster of two",
    ),
    Case(
        "NcfastShadowDisagrees",
        {'nowconnect_shadow_decisions_total{decision="local", agrees="no"}': at_once(1)},
        6,
        17,
        {"decision": "local"},
    ),
    Case(
        "NcfastCrossReplicaShare",
        {
            'nowconnect_flows_by_path_total{path="local"}': steady(1, 150),
            'nowconnect_flows_by_path_total{path="mesh"}': growing(1, 0, 30, 150),
        },
        25,
        140,
        {"instance": "", "job": ""},
    ),
    Case("NcfastRegistryAway", {"nowconnect_registry_healthy": between(5, 10, 0, 1)}, 6, 12, {}),
    Case(
        "NcfastRegistrySlow",
        histogram("nowconnect_registry_latency_seconds", growing(4, 0, 20), "0.1")
        | {"nowconnect_registry_healthy": between(0, 40, 1)},
        15,
        27,
        {},
    ),
    Case(
        "NcfastRegistryErrors",
        {
            'nowconnect_registry_errors_total{reason="unauthorized"}': at_once(20),
            "nowconnect_registry_healthy": between(0, 40, 1),
        },
        6,
        12,
        {"reason": "unauthorized"},
    ),
    Case(
        "NcfastRegistryErrors",
        {
            'nowconnect_registry_errors_total{reason="timeout"}': at_once(50),
            "nowconnect_registry_healthy": between(4, 6, 0, 1),
        },
        7,
        None,
        None,
        "a freeze is told once, by NcfastRegistryAway",
    ),
    Case(
        "NcfastViewsDiffer",
        {
            'nowconnect_registry_agents{instance="a"}': between(5, 10, 6, 7),
            'nowconnect_registry_agents{instance="b"}': between(0, 40, 7),
            'nowconnect_registry_agents{instance="c"}': between(0, 40, 3),
        },
        8,
        12,
        {"instance": "", "job": ""},
        "and not of two clusters that have different agents",
    ),
    Case(
        "NcfastMemory",
        {"nowconnect_memory_held_bytes": between(5, 15, 50), "nowconnect_memory_budget_bytes": between(0, 40, 100)},
        11,
        17,
        {},
    ),
    Case(
        "NcfastDescriptors",
        {"process_open_fds": between(5, 15, 90), "process_max_fds": between(0, 40, 100)},
        11,
        17,
        {},
    ),
    Case("NcfastLoopLag", histogram("nowconnect_loop_lag_seconds", growing(4, 0, 15), "0.1"), 10, 22, {}),
    Case(
        "NcfastFlowsUnaccounted",
        {"nowconnect_flows_unaccounted": between(5, 15, 1), "nowconnect_relays_unaccounted": between(0, 40, 0)},
        11,
        17,
        {},
    ),
    Case(
        "NcfastBudgetBurnsFast",
        {
            'nowconnect_flows_closed_total{listener="ldap", reason="closed"}': steady(100, 120),
            'nowconnect_flows_closed_total{listener="ldap", reason="hold_timeout"}': growing(5, 10, 40, 120),
            'nowconnect_accept_shed_total{listener="ldap", reason="memory"}': "0+0x4000",
        },
        30,
        85,
        {"instance": "", "job": ""},
    ),
    Case(
        "NcfastBudgetBurnsFast",
        {
            'nowconnect_flows_closed_total{listener="ldap", reason="closed"}': steady(100),
            'nowconnect_flows_closed_total{listener="ldap", reason="target_refused"}': steady(50),
            'nowconnect_accept_shed_total{listener="ldap", reason="memory"}': "0+0x4000",
        },
        30,
        None,
        None,
        "a target that is down is not the service's fault",
    ),
    Case(
        "NcfastBudgetBurnsFast",
        {
            'nowconnect_flows_closed_total{listener="ldap", reason="closed"}': at_once(10),
            'nowconnect_flows_closed_total{listener="ldap", reason="link_lost"}': at_once(2),
            'nowconnect_accept_shed_total{listener="ldap", reason="memory"}': "0+0x4000",
        },
        8,
        None,
        None,
        "two of twelve in a quiet night",
    ),
    Case(
        "NcfastBudgetBurnsSlowly",
        {
            'nowconnect_flows_closed_total{listener="ldap", reason="closed"}': steady(1000, 700),
            'nowconnect_flows_closed_total{listener="ldap", reason="open_timeout"}': growing(4, 10, 100, 700),
            'nowconnect_accept_shed_total{listener="ldap", reason="memory"}': "0+0x4000",
        },
        95,
        600,
        {"instance": "", "job": ""},
    ),
    Case(
        "NcfastBudgetBurnsFast",
        flows(steady(100, 400), growing(25, 360, 380, 400)),
        368,
        None,
        {"instance": "", "job": ""},
        "a fifth of the flows, for some minutes after hours without a failure: 14.4 times in an hour",
    ),
    Case(
        "NcfastBudgetBurnsFast",
        flows(steady(100, 100), steady(1, 100)),
        90,
        None,
        {"instance": "", "job": ""},
        "one of a hundred: 6 times in six hours, and less than 14.4",
    ),
    Case(
        "NcfastBudgetBurnsFast",
        flows(steady(1000, 100), steady(4, 100)),
        90,
        None,
        None,
        "four of a thousand are for NcfastBudgetBurnsSlowly",
    ),
    Case(
        "NcfastBudgetBurnsSlowly",
        flows(steady(1000, 100), steady(2, 100)),
        90,
        None,
        {"instance": "", "job": ""},
        "two of a thousand, for days",
    ),
    Case(
        "NcfastBudgetBurnsSlowly",
        flows(steady(2000, 100), steady(1, 100)),
        90,
        None,
        None,
        "half of what the objective allows",
    ),
)


def of_alerts() -> str:
    """``config/prometheus/alerts.test.yaml``."""
    mine = [case for case in CASES if case.alert not in SLO]
    return _file("alerts.yaml", "15s", mine)


def of_objectives() -> str:
    """``config/prometheus/objectives.test.yaml``: apart, since they look at hours, and minutes are fine enough."""
    return _file("objectives.yaml", "1m", [case for case in CASES if case.alert in SLO])


def _file(rules: str, every: str, mine: list[Case]) -> str:
    document = {"rule_files": [rules], "evaluation_interval": every, "tests": [_test(case) for case in mine]}
    return HEAD.format(source="cases.py", text=TEXT) + dump(document)


def _test(case: Case) -> dict[str, Any]:
    series = {_series(name): values for name, values in case.series.items()}
    for hub, cluster in HUBS.items():
        info = f'nowconnect_cluster_info{{cluster="{cluster}", replica="hub-{hub}", job="ncfast", instance="{hub}"}}'
        if case.alert == "NcfastHubDown" and hub == "a":  # its metrics are gone with it
            series[info] = f"1+0x19 stale _x{5 * PER_MINUTE - 2} 1+0x100"
        else:
            series[info] = "1+0x4000"
    checks = [_check(case, case.at, case.labels)]
    if case.quiet is not None:
        checks.append(_check(case, case.quiet, None))
    return {
        "name": f"{case.alert}: {case.why}" if case.why else case.alert,
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": checks,
    }


def _series(name: str) -> str:
    metric, _, matchers = name.rstrip("}").partition("{")
    hub = "" if "instance=" in matchers else 'instance="a"'
    inside = ", ".join(filter(None, (matchers, hub, 'job="ncfast"')))
    return f"{metric}{{{inside}}}"


def _check(case: Case, minute: float, labels: dict[str, str] | None) -> dict[str, Any]:
    samples = []
    if labels is not None:
        whole = {"alertstate": "firing", "instance": "a", "job": "ncfast", "cluster": "east"} | labels
        whole |= {"alertname": case.alert, "severity": SEVERITY[case.alert]}
        text = ", ".join(f'{name}="{value}"' for name, value in sorted(whole.items()) if value)
        samples = [{"labels": f"ALERTS{{{text}}}", "value": 1}]
    return {
        "expr": f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}',
        "eval_time": f"{minute * 60:g}s",
        "exp_samples": samples,
    }
