"""Every metric family of an agent, read from the document of its `/status`.

They are few, and their labels say words of ours or names of the configuration; each is there from the start.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ncfast import __version__
from ncfast.agent.counts import ROLES
from ncfast.agent.standing import STATUSES
from ncfast.observe.labels import FLOWS_CLOSED, HANDOVERS

Document = dict[str, Any]
Value = float | Mapping[Any, float] | None  # by the value of the one label, or a tuple of theirs; None: no sample


@dataclass(frozen=True, slots=True)
class Metric:
    """One family."""

    name: str
    help: str
    read: Callable[[Document], Value]
    labels: tuple[str, ...] = ()
    kind: str = "gauge"


def _of_tunnels(document: Document) -> Value:
    states = [one["state"] for one in document["tunnels"]]
    return {role: states.count(role) for role in ROLES}


METRICS = (
    Metric(
        "nowconnect_agent_build_info",
        "Always 1; the labels name the release and the Python it runs on.",
        lambda d: {(__version__, platform.python_version()): 1},
        ("version", "python"),
    ),
    Metric("nowconnect_agent_uptime_seconds", "Seconds since the agent started.", lambda d: d["uptime_sec"]),
    Metric(
        "nowconnect_agent_readiness",
        "1 for what /readyz answers now, 0 for the other answers.",
        lambda d: {status: float(d["ready"]["status"] == status) for status in STATUSES},
        ("status",),
    ),
    Metric(
        "nowconnect_agent_tunnels",
        "Tunnels that stand: one that owns, and one that stands by in a cluster.",
        _of_tunnels,
        ("role",),
    ),
    Metric(
        "nowconnect_agent_claims_granted_total",
        "Tunnels that came to own the agent; each after the first is a move or a loss.",
        lambda d: d["granted"],
        kind="counter",
    ),
    Metric(
        "nowconnect_agent_handovers_total",
        "Upgrades: done, or cut short because the predecessor died, by the successor; failed, by one that goes on.",
        lambda d: dict.fromkeys(HANDOVERS, 0) | d["handovers"],
        ("result",),
        "counter",
    ),
    Metric(
        "nowconnect_agent_connects_failed_total",
        "Dials of hubs that came to nothing, by what the tunnel was for.",
        lambda d: dict.fromkeys(ROLES, 0) | d["dials"]["failed"],
        ("role",),
        "counter",
    ),
    Metric(
        "nowconnect_agent_target_up",
        "1 while a connector's target is well, or nobody checks it; 0 while it is withdrawn.",
        lambda d: {one["connector"]: float(one["healthy"]) for one in d["targets"]},
        ("connector",),
    ),
    Metric("nowconnect_agent_flows_active", "Flows open now.", lambda d: d["flows"]["active"]),
    Metric(
        "nowconnect_agent_flows_closed_total",
        "Flows ended, each under exactly one reason.",
        lambda d: dict.fromkeys(FLOWS_CLOSED, 0) | d["flows"]["closed"],
        ("reason",),
        "counter",
    ),
    Metric(
        "nowconnect_agent_target_bytes_total",
        "Bytes that have come for targets (to), and that were read from them (from).",
        lambda d: {"to": d["bytes"]["to_targets"], "from": d["bytes"]["from_targets"]},
        ("direction",),
        "counter",
    ),
    Metric(
        "nowconnect_agent_memory_budget_bytes",
        "Bound of all bytes that wait in the process.",
        lambda d: d["memory"]["budget_bytes"],
    ),
    Metric("nowconnect_agent_memory_held_bytes", "Bytes that wait now.", lambda d: d["memory"]["held_bytes"]),
    Metric(
        "nowconnect_otlp_records_total",
        "Log lines for a collector (`otlp`), by what became of them; dropped: too many waited.",
        lambda d: d["otlp"],
        ("result",),
        "counter",
    ),
    Metric(
        "nowconnect_agent_token_expires_seconds",
        "For how long the agent's token still counts. Negative: it has ended. No sample: it does not say.",
        lambda d: d["token"]["expires_sec"],
    ),
    Metric(
        "nowconnect_certificate_expires_seconds",
        "For how long the certificate that the agent shows to hubs still counts.",
        lambda d: d["certificates"],
        ("use",),
    ),
)


async def exposition(document: Document) -> bytes:
    """The document in Prometheus' text format."""
    return await asyncio.to_thread(_text, document)  # in a thread, as the first one loads Prometheus' library


def _text(document: Document) -> bytes:
    from ncfast.observe import exposition

    parts: list[bytes] = []
    for metric in METRICS:
        family = exposition.empty(metric)
        for key, number in _samples(metric.read(document)).items():
            exposition.add(family, key if isinstance(key, tuple) else (key,), number)
        for _ in exposition.write(family, len(family.samples) or 1, parts.append):
            pass
    return b"".join(parts) + exposition.process()


def _samples(value: Value) -> Mapping[Any, float]:
    if value is None:
        return {}
    return value if isinstance(value, Mapping) else {(): value}
