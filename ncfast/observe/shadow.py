"""Whether a hub in shadow mode is ready for active, judged by its status."""

from __future__ import annotations

from typing import Any

from ncfast.observe.units import duration

SETTLED_SEC = 900  # without a disagreement: as long as the alert NcfastShadowDisagrees looks back
COLUMNS = ("connector", "clients", "served here", "across the mesh", "by nobody", "share served")


def coverage(row: dict[str, Any]) -> float | None:
    """The share of a connector's clients that active would have served, 0 to 1; None before the first."""
    clients = row["here"] + row["mesh"] + row["nobody"]
    return (row["here"] + row["mesh"]) / clients if clients else None


def cells(row: dict[str, Any]) -> tuple[object, ...]:
    """A connector's row under `COLUMNS`. The share is cut off rather than rounded: 100 % is all of them."""
    share = coverage(row)
    return (
        row["connector"],
        row["here"] + row["mesh"] + row["nobody"],
        row["here"],
        row["mesh"],
        row["nobody"],
        "" if share is None else f"{int(share * 1000) / 10:g} %",
    )


def hindrances(status: dict[str, Any]) -> list[str]:
    """Why the hub should not be turned to active; none: it is ready. Clients whom nobody would serve are no hindrance:
    they fare no worse than today."""
    cluster = status.get("cluster")
    if cluster is None:
        return ["it is in no cluster (ha.enabled)"]
    if cluster.get("shadow") is None:
        return [f"its mode is {status['mode']}: only shadow compares"]
    found, registry = [], cluster["registry"]
    others = [replica for replica in cluster["replicas"] if not replica["self"] and not replica["draining"]]
    if not registry["healthy"]:
        found.append("the registry is not healthy")
    elif not registry["fresh"]:
        found.append("the view of the registry is stale")
    if not others:
        found.append("no other hub is known")
    found += [f"no mesh link to {replica['replica_id']}" for replica in others if not replica["linked"]]
    if not any(row["here"] + row["mesh"] + row["nobody"] for row in cluster["shadow"]):
        found.append("no client has come yet, so nothing is compared")
    found += [
        f"{row['connector']}: the registry knew our agents otherwise than we do, {duration(row['misknown_sec'])} ago"
        for row in cluster["shadow"]
        if row["misknown_sec"] is not None and row["misknown_sec"] < SETTLED_SEC
    ]
    return found
