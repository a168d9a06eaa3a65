"""An agent's `/status` as text for a person."""

from __future__ import annotations

from typing import Any

from ncfast.cli.table import table
from ncfast.observe.units import duration, size


def is_ready(status: dict[str, Any]) -> bool:
    """Whether clients can come to the agent."""
    return status["ready"]["status"] in ("ready", "degraded")


def render(status: dict[str, Any]) -> str:
    ready, flows, moved, memory = (status[part] for part in ("ready", "flows", "bytes", "memory"))
    reasons = f" ({', '.join(ready['reasons'])})" if ready["reasons"] else ""
    endings = ", ".join(f"{reason} {count}" for reason, count in sorted(flows["closed"].items()))
    lines = [
        f"{status['agent_id']} (ncfast {status['version']}, pid {status['pid']}): {ready['status']}{reasons},"
        f" up {duration(status['uptime_sec'])}",
        *_upgrade(status.get("upgrade")),
        "",
        f"token   {_left(status['token'])}",
        *(f"{use:<7} certificate {_time_left(left)}" for use, left in status["certificates"].items()),
        f"dials   {status['granted']} came to own, {_failures(status['dials'])}",
        f"flows   {flows['active']} active, {flows['opened']} opened",
        f"ended   {endings or 'none'}",
        f"bytes   {size(moved['to_targets'])} to targets, {size(moved['from_targets'])} from them",
        f"memory  {size(memory['held_bytes'])} of {size(memory['budget_bytes'])} held",
        "",
        *_tunnels(status["tunnels"]),
        "",
        *table(
            ("CONNECTOR", "TARGET", "STATE", "DIALS", "HELD"),
            [
                (each["connector"], each["target"], _well(each), each["dials"], size(each["held_bytes"]))
                for each in status["targets"]
            ],
        ),
    ]
    return "\n".join(lines)


def _upgrade(upgrade: dict[str, Any] | None) -> list[str]:
    if upgrade is None:
        return []
    return [f"upgrade {upgrade['passed']} flows have passed, {upgrade['left']['flows']} are left at the former process"]


def _left(token: dict[str, Any]) -> str:
    if token["fault"]:
        return token["fault"]
    return "does not say when it ends" if token["expires_sec"] is None else _time_left(token["expires_sec"])


def _time_left(seconds: float) -> str:
    return f"counts for {duration(seconds)}" if seconds > 0 else f"ended {duration(-seconds)} ago"


def _failures(dials: dict[str, Any]) -> str:
    last = dials["last_failure"]
    failed = sum(dials["failed"].values())
    if last is None:
        return "none failed"
    return f"{failed} failed, the last {duration(last['ago_sec'])} ago at {last['hub']}: {last['reason']}"


def _tunnels(tunnels: list[dict[str, Any]]) -> list[str]:
    if not tunnels:
        return ["no tunnel"]
    return table(
        ("TUNNEL", "HUB", "REPLICA", "EPOCH", "RTT ms", "FOR"),
        [
            (
                each["state"] + (" (draining)" if each["draining"] else ""),
                each["hub"],
                each["replica"] or None,
                each["epoch"] or None,
                f"{each['rtt_ms']:.2f}",
                duration(each["since_sec"]),
            )
            for each in tunnels
        ],
    )


def _well(target: dict[str, Any]) -> str:
    if not target["checked"]:
        return "not checked"
    return "up" if target["healthy"] else "DOWN"
