"""How the families of `ncfast.observe.families` are read: from the counters, and from the totals of
`ncfast.hub.snapshot`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ncfast.observe.stats import Stats

LINK_STATES = ("backoff", "dialling", "handshaking", "up", "draining", "resting", "lost")  # of `ncfast.mesh.states`
MODES = ("off", "shadow", "active")  # off: also where there is no cluster
BREAKER_STATES = ("closed", "open", "half_open")

Values = float | Mapping[Any, float]
NOTHING: Mapping[str, float] = {}  # no sample: what is measured is not there, which is not the same as 0


def listeners(stats: Stats, hub: dict[str, Any]) -> Iterable[str]:
    """Those there are, and those there were."""
    return stats.listeners


def connectors(stats: Stats, hub: dict[str, Any]) -> Iterable[str]:
    """Those that listeners lead to."""
    return {entry["connector"] for entry in hub["listeners"]}


def linked(stats: Stats, hub: dict[str, Any]) -> Iterable[str]:
    """Peers to which a link stands."""
    return [link["peer"] for link in _links(hub) if link["state"] == "up"]


def of_listeners(member: str) -> Callable[[Stats, dict[str, Any]], Values]:
    """A number of `ListenerStats`."""
    return lambda stats, hub: {name: getattr(one, member) for name, one in stats.listeners.items()}


def reasons(member: str) -> Callable[[Stats, dict[str, Any]], Values]:
    """A counter of `ListenerStats`, by listener and reason."""
    return lambda stats, hub: {
        (name, reason): count for name, one in stats.listeners.items() for reason, count in getattr(one, member).items()
    }


def client_bytes(direction: str) -> Callable[[Stats, dict[str, Any]], Values]:
    """What was read from clients, or came for them, by listener."""
    return lambda stats, hub: {name: both[direction] for name, both in hub["bytes"]["listeners"].items()}


def per_listener(key: str) -> Callable[[Stats, dict[str, Any]], Values]:
    return lambda stats, hub: {entry["name"]: float(entry[key]) for entry in hub["listeners"]}


def tunnels(key: str) -> Callable[[Stats, dict[str, Any]], Values]:
    return lambda stats, hub: hub["tunnels"][key]


def locks(stats: Stats, hub: dict[str, Any]) -> Values:
    return len(hub["locks"])


def frames(stats: Stats, hub: dict[str, Any]) -> Values:
    return {
        (direction, kind): count
        for direction in ("in", "out")
        for kind, count in hub["links"][f"frames_{direction}"].items()
    }


def mesh_frames(stats: Stats, hub: dict[str, Any]) -> Values:
    frames = hub.get("mesh_frames") or {}
    return {(direction, kind): count for direction, kinds in frames.items() for kind, count in kinds.items()}


def name_lookups(stats: Stats, hub: dict[str, Any]) -> Values:
    return {(share, outcome): count for share, counts in hub["names"].items() for outcome, count in counts.items()}


def level_share(stats: Stats, hub: dict[str, Any]) -> Values:
    cluster = hub.get("cluster")
    share = cluster["level"]["share"] if cluster else None
    return NOTHING if share is None else float(share)


def _links(hub: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = hub.get("cluster")
    return cluster["mesh"] if cluster else []


def mesh_links(stats: Stats, hub: dict[str, Any]) -> Values:
    return {(link["peer"], state): float(link["state"] == state) for link in _links(hub) for state in LINK_STATES}


def per_link(key: str) -> Callable[[Stats, dict[str, Any]], Values]:
    return lambda stats, hub: {link["peer"]: float(link[key]) for link in _links(hub)}


def registry(key: str) -> Callable[[Stats, dict[str, Any]], Values]:
    def read(stats: Stats, hub: dict[str, Any]) -> Values:
        cluster = hub.get("cluster")
        value = cluster["registry"][key] if cluster else None
        return NOTHING if value is None else float(value)

    return read


def breaker(stats: Stats, hub: dict[str, Any]) -> Values:
    cluster = hub.get("cluster")
    return {state: float(cluster["registry"]["breaker"] == state) for state in BREAKER_STATES} if cluster else {}


def replicas(stats: Stats, hub: dict[str, Any]) -> Values:
    cluster = hub.get("cluster")
    others = [replica for replica in cluster["replicas"] if not replica["self"]] if cluster else []
    linked = sum(replica["linked"] for replica in others)
    return {"yes": linked, "no": len(others) - linked} if cluster else {}


def unaccounted(stats: Stats, hub: dict[str, Any]) -> Values:
    return stats.flows_opened - stats.flows_closed.total() - hub["flows"]["active"]


def relays_unaccounted(stats: Stats, hub: dict[str, Any]) -> Values:
    return stats.relays_opened + stats.relays_resumed - stats.relays_ended - hub["flows"].get("relayed", 0)
