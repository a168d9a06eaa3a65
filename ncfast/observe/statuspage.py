"""The admin edge's page for people: the hub's snapshot as HTML, without scripts or anything from elsewhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from typing import Any

from ncfast.observe import shadow
from ncfast.observe.units import duration, size

MAX_AGENTS = 200  # rows; all of them are in /status
REFRESH_SEC = 5
FLOW_COUNTS = ("active", "opening", "detached", "held", "opened", "resumed")
LISTENER_COLUMNS = ("name", "bind", "connector", "active", "accepted", "held")

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; }
table { border-collapse: collapse; width: 100%; margin: 1.5rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8886; }
.number { text-align: right; }
.trouble { font-weight: 700; text-decoration: underline; }
"""

# The page may use its own style and nothing else: text of a peer that slipped through could not do a thing.
SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def hubs(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """The snapshot's replicas and mesh links as one list: this hub first, then its peers with their link or None.

    A link to a peer that the registry does not know (any longer) stands last, under its name or URL.
    """
    links = {link["peer"]: link for link in cluster["mesh"]}
    known = sorted(cluster["replicas"], key=lambda replica: (not replica["self"], replica["replica_id"]))
    rows = [
        {
            "name": replica["replica_id"],
            "self": replica["self"],
            "draining": replica["draining"],
            "link": links.pop(replica["replica_id"], None),
        }
        for replica in known
    ]
    return rows + [
        {"name": name, "self": False, "draining": False, "link": link} for name, link in sorted(links.items())
    ]


def render(hub: dict[str, Any], refresh: bool = True) -> bytes:
    """The page for a hub's document, whose agents may be the first ones only; without ``refresh`` it stands still, for
    those who read slowly."""
    ready = hub["ready"]
    status = ready["status"].replace("_", " ")
    reasons = ", ".join(ready["reasons"]).replace("_", " ")
    agents = hub["agents"][:MAX_AGENTS]
    count = hub["tunnels"]["owned"] + hub["tunnels"]["standby"]
    flows, memory = hub["flows"], hub["memory"]
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<meta http-equiv=refresh content={REFRESH_SEC}>" if refresh else "",
        f"<title>{_text(hub['replica_id'])}: {_text(status)}</title>",
        f"<style>{STYLE}</style></head><body><main>",
        f"<h1>Hub {_text(hub['replica_id'])}: ",
        f"<span{'' if status == 'ready' else ' class=trouble'}>{_text(status)}</span></h1>",
        f"<p>{_text(reasons)}</p>" if reasons else "",
        f"<p>ncfast {_text(hub['version'])}, {_text(hub['state'])} for {duration(hub['uptime_sec'])}. ",
        "<a href='/?refresh=off'>Stop refreshing</a>" if refresh else "<a href='/'>Refresh by itself</a>",
        " · <a href=/status>JSON</a> · <a href=/metrics>Metrics</a></p>",
        _table(
            "Flows",
            (*FLOW_COUNTS, "closed", "from clients", "to clients"),
            [
                (
                    *(flows[key] for key in FLOW_COUNTS),
                    sum(flows["closed"].values()),
                    size(hub["bytes"]["client_in"]),
                    size(hub["bytes"]["client_out"]),
                )
            ],
        ),
        _table(
            "Listeners",
            (*LISTENER_COLUMNS, "accepting"),
            [
                (*(entry[key] for key in LISTENER_COLUMNS), "yes" if entry["accepting"] else "no")
                for entry in hub["listeners"]
            ],
        ),
        *_cluster(hub),
        _table(
            f"Agents ({_shown(agents, count)})",
            ("agent", "connectors", "from", "round trip", "flows", "received", "sent", "connected", "state"),
            [
                (
                    agent["agent_id"],
                    ", ".join(agent["connectors"]),
                    agent["remote"],
                    "" if agent["rtt_ms"] is None else f"{agent['rtt_ms']:.1f} ms",
                    agent["flows"],
                    size(agent["bytes_in"]),
                    size(agent["bytes_out"]),
                    duration(agent["connected_sec"]),
                    "draining" if agent["draining"] else "standby" if agent.get("standby") else "up",
                )
                for agent in agents
            ],
        ),
        _table(
            "Flows closed",
            ("reason", "flows"),
            sorted(flows["closed"].items(), key=lambda item: -item[1]),
        ),
        f"<p>Memory that waits: {size(memory['held_bytes'])} of {size(memory['budget_bytes'])}.</p>",
        "</main></body></html>\n",
    ]
    return "".join(parts).encode()


def _cluster(hub: dict[str, Any]) -> list[str]:
    cluster = hub.get("cluster")
    if cluster is None:
        return []
    registry, flows = cluster["registry"], hub["flows"]
    healthy = "healthy" if registry["healthy"] else "<span class=trouble>unhealthy</span>"
    fresh = "" if registry["fresh"] else ", <span class=trouble>its view is stale</span>"
    agents = cluster["agents"][:MAX_AGENTS]
    return [
        f"<p>Cluster {_text(cluster['name'])}, {_text(cluster['mode'])}. Registry in "
        f"{_text(registry['kind'])}: {healthy}{fresh}, "
        f"breaker {_text(registry['breaker'].replace('_', ' '))}. Flows: {flows['by_path']['local']:,} to agents here, "
        f"{flows['by_path']['mesh']:,} across the mesh, {flows['relayed']:,} relayed for other hubs.</p>",
        _table(
            "Hubs",
            (
                "hub",
                "link",
                "round trip",
                "by",
                "flows",
                "queued",
                "in flight",
                "for",
                "reconnects",
                "errors",
                "last error",
            ),
            [_hub(row) for row in hubs(cluster)],
        ),
        *_shadow(hub),
        _table(
            f"Agents of the cluster ({_shown(agents, registry['agents'])})",
            ("agent", "owner", "epoch", "connectors", "state"),
            [
                (
                    agent["agent_id"],
                    agent["owner"],
                    str(agent["epoch"]),  # as logs and `ncfast status` write it
                    ", ".join(agent["connectors"]),
                    "draining" if agent["draining"] else "up",
                )
                for agent in agents
            ],
        ),
    ]


def _shadow(hub: dict[str, Any]) -> list[str]:
    """What the mode `shadow` has found out; nothing in the others."""
    rows = hub["cluster"]["shadow"]
    if rows is None:
        return []
    why = shadow.hindrances(hub)
    verdict = (
        f"<span class=trouble>Not ready for active</span>: {_text('; '.join(why))}." if why else "Ready for active."
    )
    return [
        _table("Shadow: what active would have done", shadow.COLUMNS, map(shadow.cells, rows)),
        f"<p>{verdict}</p>",
    ]


def _shown(rows: list[dict[str, Any]], count: int) -> str:
    return f"{len(rows)} of {count}" if count > len(rows) else str(len(rows))


def _hub(row: dict[str, Any]) -> tuple[Any, ...]:
    name = row["name"] + (" (draining)" if row["draining"] else "")
    link = row["link"]
    if link is None:
        return (name, "this hub" if row["self"] else "none", *[""] * 9)
    return (
        name,
        link["state"],
        "" if link["rtt_ms"] is None else f"{link['rtt_ms']:.2f} ms",
        " ".join(filter(None, (link["carrier"], link["direction"]))),
        link["flows"],
        link["queued_frames"],
        size(link["inflight_bytes"]),
        duration(link["since_sec"]),
        link["reconnects"],
        link["errors"],
        link["last_error"] or "",
    )


def _table(caption: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    rows = list(rows)
    numbers = [any(isinstance(row[k], int) for row in rows) for k in range(len(columns))]
    head = "".join(
        f"<th scope=col{' class=number' * number}>{_text(column)}</th>"
        for column, number in zip(columns, numbers, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    empty = f"<tr><td colspan={len(columns)}>none</td></tr>"
    return (
        f"<table><caption>{_text(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body or empty}</tbody></table>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"<td class=number>{value:,}</td>"
    return f"<td>{_text(value)}</td>"


def _text(value: Any) -> str:
    return escape(str(value)).encode("utf-8", "backslashreplace").decode()
