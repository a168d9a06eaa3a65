"""What matters, in words: what somebody who was woken wants to know first. The gravest stand first."""

from __future__ import annotations

from typing import Any, NamedTuple

from ncfast.observe.page.hubs import hubs
from ncfast.observe.units import duration, size

CERTIFICATE_SOON = 14 * 86400  # seconds: time to get one by hand
TOKEN_SOON = 0.2  # of its life: from there on the agent warns, too (`ncfast.agent.claims.WARN_AT`)
MUCH = 0.8  # of the memory's bound
NAMED = 3  # of several; of the others the number

REASONS = {  # of `ncfast.observe.readiness`
    "mesh_missing": "No other hub is linked: clients of agents elsewhere are refused.",
    "registry_unhealthy": "The registry does not answer: the hub goes by the last view it had.",
    "jwks_stale": "Keys for tokens are old: new keys of the issuer are not known.",
    "memory_pressure": "Memory is at its bound: new flows are refused.",
    "fd_pressure": "Descriptors are used up: accepting pauses.",
    "listener_down": "A listener could not be bound.",
}


class Finding(NamedTuple):
    """`kind` is bad (something does not work), warn (it soon may not) or idle (to be known)."""

    kind: str
    said: str


def token_ends_soon(agent: dict[str, Any]) -> bool:
    """Whether an agent has not renewed its token when it should have."""
    life = agent.get("token_life_sec")
    return life is not None and agent["token_expires_sec"] < TOKEN_SOON * life


def upgraded(upgrade: dict[str, Any]) -> str:
    """How far an upgrade is, in words."""
    left = ", ".join(f"{count} {what}" for what, count in upgrade["left"].items())
    return f"{upgrade['passed']} clients have passed, {left} are left at the former process"


def findings(hub: dict[str, Any]) -> list[Finding]:
    """Of a hub's document with `ending`, the agents whose tokens end soon, and `config_refused`."""
    found: list[Finding] = []
    ready = hub["ready"]
    if ready["status"] == "not_serving":
        found.append(Finding("bad", f"The hub does not serve: it is {hub['state']}."))
    elif ready["status"] in ("leaving", "draining"):
        found.append(Finding("warn", f"The hub is {ready['status']}: balancers send clients elsewhere."))
    if (upgrade := hub.get("upgrade")) is not None:
        found.append(Finding("idle", f"The hub is being upgraded: {upgraded(upgrade)}."))
    found += [Finding("bad", REASONS.get(reason, reason.replace("_", " "))) for reason in ready["reasons"]]
    found += _listeners(hub["listeners"])
    found += _cluster(hub.get("cluster"), ready["reasons"])
    found += _ends(hub.get("ending", []), hub.get("certificates", {}))
    memory = hub["memory"]
    if memory["held_bytes"] > MUCH * memory["budget_bytes"] and "memory_pressure" not in ready["reasons"]:
        found.append(Finding("warn", f"{size(memory['held_bytes'])} wait, of {size(memory['budget_bytes'])} that may."))
    if hub.get("config_refused"):
        found.append(Finding("warn", "The last configuration was refused: what runs is not what the file says."))
    if hub["locks"]:
        found.append(Finding("idle", f"Locked out: {_named([lock['agent_id'] for lock in hub['locks']])}."))
    order = {"bad": 0, "warn": 1, "idle": 2}
    return sorted(found, key=lambda one: order[one.kind])


def _listeners(listeners: list[dict[str, Any]]) -> list[Finding]:
    alone = [f"{one['name']} ({one['connector']})" for one in listeners if not one["agents"]]
    shut = [one["name"] for one in listeners if not one["accepting"]]
    found = []
    if alone:
        found.append(Finding("bad", f"Without an agent: {_many('listener', alone)}. Clients there are refused."))
    if shut:
        found.append(Finding("warn", f"Not accepting: {_many('listener', shut)}."))
    return found


def _cluster(cluster: dict[str, Any] | None, reasons: list[str]) -> list[Finding]:
    if cluster is None:
        return []
    found, registry = [], cluster["registry"]
    if not registry["healthy"] and "registry_unhealthy" not in reasons:
        found.append(Finding("bad", REASONS["registry_unhealthy"]))
    elif registry["healthy"] and not registry["fresh"]:
        found.append(Finding("warn", "The view of the registry is stale."))
    broken = [one["name"] for one in hubs(cluster) if not one["self"] and (one["link"] or {}).get("state") != "up"]
    if broken:
        found.append(Finding("bad", f"No link to {_many('hub', broken)}."))
    leaving = [one["replica_id"] for one in cluster["replicas"] if one["draining"] and not one["self"]]
    if leaving:
        found.append(Finding("idle", f"Draining: {_many('hub', leaving)}."))
    return found


def _ends(agents: list[dict[str, Any]], certificates: dict[str, float]) -> list[Finding]:
    found = []
    over = [one["agent_id"] for one in agents if one["token_expires_sec"] <= 0]
    soon = sorted((one for one in agents if one["token_expires_sec"] > 0), key=lambda one: one["token_expires_sec"])
    if over:
        found.append(Finding("bad", f"The token has ended of {_many('agent', over)}."))
    if soon:
        named = [f"{one['agent_id']} in {duration(one['token_expires_sec'])}" for one in soon]
        found.append(Finding("warn", f"The token ends soon of {_many('agent', named)}."))
    for use, left in sorted(certificates.items()):
        if left <= 0:
            found.append(Finding("bad", f"The certificate of {use} has ended."))
        elif left < CERTIFICATE_SOON:
            found.append(Finding("warn", f"The certificate of {use} ends in {duration(left)}."))
    return found


def _many(what: str, names: list[str]) -> str:
    return f"{what} {names[0]}" if len(names) == 1 else f"{len(names):,} {what}s: {_named(names)}"


def _named(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
