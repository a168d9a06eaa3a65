"""The service level objectives of docs/slo.md, and the recording rules by which they are measured.

Each is a share of events that went wrong. What is counted is recorded as a rate over 5 minutes, in the cluster's name;
a longer window is the average of those rates, bad ones over all. So a window is weighted by traffic, a hub that has
gone stays in it, and thirty days cost a few series and not all that was ever scraped.
"""

from __future__ import annotations

from dataclasses import dataclass

from monitoring.promql import among, of_cluster

# Ends of flows that are the service's fault, by `ncfast.core.errors.Reason`. Not among them: what client and target
# did, time limits that a listener sets on them, and what an operator has forbidden.
FAILED = (
    *("no_agent", "hold_timeout", "open_timeout", "overloaded", "draining"),
    *("link_lost", "agent_restarted", "unknown_flow", "origin_lost", "not_owner", "resume_denied", "stale_epoch"),
    *("flow_control", "internal"),
)
TURNED_AWAY = ("fd", "memory", "flow_cap", "listener_cap")  # at accept, for want of room
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")  # of the alerts on burn rates
MONTH = "30d"


@dataclass(frozen=True, slots=True)
class Objective:
    """A bound on the share of bad events in a month. `bad` and `all` are recorded rates, by cluster."""

    name: str  # as rules and labels have it
    says: str
    bad: str
    all: str
    most: float

    def ratio(self, window: str) -> str:
        """The recorded share of bad events in the window."""
        return f"cluster:ncfast_{self.name}:bad_ratio{window}"


AVAILABILITY = Objective(
    "availability",
    "99.9 % of the flows of a month end otherwise than by a fault of the service.",
    "cluster:ncfast_flows_failed:rate5m",
    "cluster:ncfast_flows_ended:rate5m",
    0.001,
)
MESH_RTT = Objective(
    "mesh_rtt",
    "95 % of the pings of a month between two hubs are back within 20 ms.",
    "cluster:ncfast_mesh_pings_late:rate5m",
    "cluster:ncfast_mesh_pings:rate5m",
    0.05,
)
CROSS_REPLICA = Objective(
    "cross_replica",
    "At most 40 % of the flows of a month are opened across the mesh.",
    "cluster:ncfast_flows_crossed:rate5m",
    "cluster:ncfast_flows_opened:rate5m",
    0.4,
)
OBJECTIVES = (AVAILABILITY, MESH_RTT, CROSS_REPLICA)

MESH_RTT_SECONDS = 0.02  # a bound of `ncfast.observe.stats.MESH_RTT_BUCKETS`


def _rate(metric: str, matchers: str = "", by: str = "") -> str:
    return f"sum by (job, instance{by}) (rate({metric}{matchers}[5m]))"


_shed = _rate("nowconnect_accept_shed_total", f'{{reason=~"{among(TURNED_AWAY)}"}}', ", listener")
_ended = f"{_rate('nowconnect_flows_closed_total', '', ', listener')}\n+ {_shed}"
_failed = _rate("nowconnect_flows_closed_total", f'{{reason=~"{among(FAILED)}"}}', ", listener") + f"\n+ {_shed}"
_pings = _rate("nowconnect_mesh_rtt_seconds_count")
_late = f'{_pings}\n- {_rate("nowconnect_mesh_rtt_seconds_bucket", f"""{{le="{MESH_RTT_SECONDS}"}}""")}'

# What is counted: (name, expression).
COUNTED = (
    ("cluster_listener:ncfast_flows_ended:rate5m", f"sum by (cluster, listener) ({of_cluster(_ended)})"),
    ("cluster_listener:ncfast_flows_failed:rate5m", f"sum by (cluster, listener) ({of_cluster(_failed)})"),
    (AVAILABILITY.all, "sum by (cluster) (cluster_listener:ncfast_flows_ended:rate5m)"),
    (AVAILABILITY.bad, "sum by (cluster) (cluster_listener:ncfast_flows_failed:rate5m)"),
    (MESH_RTT.all, f"sum by (cluster) ({of_cluster(_pings)})"),
    (MESH_RTT.bad, f"sum by (cluster) ({of_cluster(_late)})"),
    (CROSS_REPLICA.all, f"sum by (cluster) ({of_cluster(_rate('nowconnect_flows_by_path_total'))})"),
    (
        CROSS_REPLICA.bad,
        "sum by (cluster) (" + of_cluster(_rate("nowconnect_flows_by_path_total", '{path="mesh"}')) + ")",
    ),
    (
        "cluster:ncfast_mesh_rtt_seconds:p95_5m",
        "histogram_quantile(0.95, sum by (cluster, le) ("
        + of_cluster(_rate("nowconnect_mesh_rtt_seconds_bucket", "", ", le"))
        + "))",
    ),
)


def recording_rules() -> dict[str, list[tuple[str, str]]]:
    """(name, expression) by how often they are evaluated."""
    windows = [
        (one.ratio(window), f"avg_over_time({one.bad}[{window}]) / avg_over_time({one.all}[{window}])")
        for one in OBJECTIVES
        for window in WINDOWS
    ]
    month = [
        (one.ratio(MONTH), f"avg_over_time({one.bad}[{MONTH}]) / avg_over_time({one.all}[{MONTH}])")
        for one in OBJECTIVES
    ]
    left = [
        (f"cluster:ncfast_{one.name}:budget_left{MONTH}", f"1 - {one.ratio(MONTH)} / {one.most:g}")
        for one in OBJECTIVES
    ]
    return {"1m": [*COUNTED, *windows], "5m": [*month, *left]}


def burns(*pairs: tuple[str, str, float]) -> str:
    """Budget burns at a rate, in a long window and still in a short one: (long, short, times the even rate). A handful
    of failures in a quiet night is no page."""
    return "\nor\n".join(
        f"({AVAILABILITY.ratio(long)} > {rate * AVAILABILITY.most:g}"
        f" and {AVAILABILITY.ratio(short)} > {rate * AVAILABILITY.most:g}"
        f" and sum_over_time({AVAILABILITY.bad}[{long}]) * 60 >= {FEW})"  # recorded every minute
        for long, short, rate in pairs
    )


FEW = 5  # failures in the long window, below which nobody is told
