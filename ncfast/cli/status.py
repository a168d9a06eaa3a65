"""Show what a hub is doing, and the cluster as it sees it, as its admin edge tells it at /status; or an agent."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from ncfast.cli import hubs, standing
from ncfast.cli.exitcode import ExitCode
from ncfast.cli.table import table
from ncfast.observe import adminclient, shadow
from ncfast.observe.page.findings import upgraded
from ncfast.observe.page.hubs import hubs as hubs_with_links
from ncfast.observe.units import duration, size

HELP = "show what a hub, or an agent, is doing"
_CLEAR = "\x1b[H\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    hubs.add_url(parser)
    parser.add_argument("--json", action="store_true", help="the document as the hub sends it")
    of = parser.add_mutually_exclusive_group()
    of.add_argument(
        "--agent",
        action="store_true",
        help=f"of an agent, at its admin edge (default: {hubs.AGENT}); exit code 0 while a hub owns it, otherwise 1",
    )
    of.add_argument(
        "--shadow",
        action="store_true",
        help="of a hub in shadow mode: what active would have done, and whether it is ready for it (exit code 0)",
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_interval,
        const=2.0,
        metavar="SECONDS",
        help="again and again (default: every 2)",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.agent and arguments.url == hubs.DEFAULT:
        arguments.url = hubs.AGENT
    while True:
        try:
            document = adminclient.status(hubs.place(arguments), "agent" if arguments.agent else "hub")
            code, text = _told(document, arguments)
        except adminclient.Unavailable as error:
            code, text = ExitCode.UNAVAILABLE, ""
            print(f"ncfast: {error}", file=sys.stderr)
        except adminclient.Refused as error:
            code, text = ExitCode.FAILURE, ""
            print(f"ncfast: {error}", file=sys.stderr)
        if text:
            clear = _CLEAR if arguments.watch and sys.stdout.isatty() and not arguments.json else ""
            print(clear + text, flush=True)
        if arguments.watch is None:
            return code
        time.sleep(arguments.watch)


def _told(document: dict[str, Any], arguments: argparse.Namespace) -> tuple[ExitCode, str]:
    ready = standing.is_ready(document) if arguments.agent else not arguments.shadow or not shadow.hindrances(document)
    if arguments.json:
        text = json.dumps(document)
    elif arguments.agent:
        text = standing.render(document)
    else:
        text = render_shadow(document) if arguments.shadow else render(document)
    return ExitCode.OK if ready else ExitCode.FAILURE, text


def render_shadow(status: dict[str, Any]) -> str:
    """What the mode `shadow` of a hub has found out, as text for a person."""
    rows = (status.get("cluster") or {}).get("shadow") or []
    why = shadow.hindrances(status)
    lines = table([column.upper() for column in shadow.COLUMNS], [shadow.cells(row) for row in rows]) if rows else []
    verdict = ["not ready for active:", *(f"  {line}" for line in why)] if why else ["ready for active"]
    return "\n".join([*lines, *[""] * bool(lines), *verdict])


def render(status: dict[str, Any]) -> str:
    """The status document as text for a person."""
    ready, flows, moved, memory = (status[part] for part in ("ready", "flows", "bytes", "memory"))
    reasons = f" ({', '.join(ready['reasons'])})" if ready["reasons"] else ""
    endings = ", ".join(f"{reason} {count}" for reason, count in sorted(flows["closed"].items()))
    lines = [
        f"{status['replica_id']} (ncfast {status['version']}, pid {status['pid']}): {status['state']},"
        f" {ready['status']}{reasons}, up {duration(status['uptime_sec'])}",
        f"edge {status['edge']}   admin {status['admin']}   ha {status['mode']}",
        *_upgrade(status.get("upgrade")),
        "",
        f"flows   {flows['active']} active, {flows['opening']} opening, {flows['detached']} detached,"
        f" {flows['held']} held   {flows['opened']} opened, {flows['resumed']} resumed",
        *_paths(flows),
        f"ended   {endings or 'none'}",
        f"bytes   {size(moved['client_in'])} from clients, {size(moved['client_out'])} to them",
        f"memory  {size(memory['held_bytes'])} of {size(memory['budget_bytes'])} held",
        "",
        *_listeners(status["listeners"]),
        "",
        *_agents(status["agents"]),
        *_cluster(status.get("cluster")),
    ]
    return "\n".join(lines)


def _upgrade(upgrade: dict[str, Any] | None) -> list[str]:
    return [f"upgrade {upgraded(upgrade)}"] if upgrade is not None else []


def _paths(flows: dict[str, Any]) -> list[str]:
    """Where flows go; said once a hub has been in a cluster."""
    paths = flows.get("by_path", {})
    if not paths.get("mesh") and not flows.get("relayed"):
        return []
    return [
        f"paths   {paths.get('local', 0)} to agents here, {paths.get('mesh', 0)} across the mesh,"
        f" {flows['relayed']} relayed for other hubs"
    ]


def _listeners(listeners: list[dict[str, Any]]) -> list[str]:
    if not listeners:
        return ["no listeners"]
    return table(
        ("LISTENER", "BIND", "CONNECTOR", "TENANT", "ACTIVE", "HELD", "ACCEPTED", "STATE"),
        [
            (
                each["name"],
                each["bind"],
                each["connector"],
                each["tenant"],
                each["active"],
                each["held"],
                each["accepted"],
                "accepting" if each["accepting"] else "paused",
            )
            for each in listeners
        ],
    )


def _agents(agents: list[dict[str, Any]]) -> list[str]:
    if not agents:
        return ["no agents connected"]
    return table(
        (
            "AGENT",
            "TENANT",
            "CONNECTORS",
            "REMOTE",
            "BY",
            "EPOCH",
            "FLOWS",
            "RTT ms",
            "IN",
            "OUT",
            "CONNECTED",
            "TOKEN",
        ),
        [
            (
                each["agent_id"] + (" (draining)" if each["draining"] else ""),
                each["tenant"],
                ",".join(each["connectors"]) or None,
                each["remote"],
                _tls(each),
                "standby" if each.get("standby") else each["epoch"],
                each["flows"],
                each["rtt_ms"],
                size(each["bytes_in"]),
                size(each["bytes_out"]),
                duration(each["connected_sec"]),
                duration(max(0, each["token_expires_sec"])),
            )
            for each in agents
        ],
    )


def _cluster(cluster: dict[str, Any] | None) -> list[str]:
    if cluster is None:
        return []
    registry = cluster["registry"]
    words = ["healthy" if registry["healthy"] else "UNHEALTHY", f"breaker {registry['breaker'].replace('_', ' ')}"]
    if not registry["fresh"]:
        words.append("view STALE")
    if registry["view_age_sec"] is not None:
        words.append(f"view {registry['view_age_sec']:.1f} s old")
    lines = [
        "",
        f"cluster {cluster['name']}   {cluster['mode']}   registry in {registry['kind']}, {', '.join(words)}",
        "",
    ]
    lines += table(
        ("HUB", "LINK", "RTT ms", "BY", "FLOWS", "QUEUED", "IN FLIGHT", "FOR", "RECONNECTS", "ERRORS", "LAST ERROR"),
        [
            (
                hub["name"] + (" (draining)" if hub["draining"] else ""),
                *_link(hub["link"]),
            )
            if not hub["self"]
            else (hub["name"] + " (this one)", *[None] * 10)
            for hub in hubs_with_links(cluster)
        ],
    )
    if cluster["agents"]:
        lines.append("")
        lines += table(
            ("AGENT OF THE CLUSTER", "TENANT", "OWNER", "EPOCH", "CONNECTORS"),
            [
                (
                    each["agent_id"] + (" (draining)" if each["draining"] else ""),
                    each["tenant"],
                    each["owner"],
                    each["epoch"],
                    ",".join(each["connectors"]) or None,
                )
                for each in cluster["agents"]
            ],
        )
    return lines


def _link(link: dict[str, Any] | None) -> tuple[object, ...]:
    if link is None:
        return ("none", *[None] * 9)
    return (
        link["state"],
        None if link["rtt_ms"] is None else f"{link['rtt_ms']:.2f}",
        " ".join(filter(None, (link["carrier"], _tls(link), link["direction"]))),
        link["flows"],
        link["queued_frames"],
        size(link["inflight_bytes"]),
        duration(link["since_sec"]),
        link["reconnects"],
        link["errors"],
        _last_error(link),
    )


def _tls(row: dict[str, Any]) -> str | None:
    """What is below a tunnel or a link; hubs of before did not say."""
    return None if (tls := row.get("tls")) is None else "TLS" if tls else "plain"


def _last_error(link: dict[str, Any]) -> str | None:
    since = link.get("last_error_sec")
    ago = f", {duration(since)} ago" if since is not None else ""
    return f"{link['last_error']}{ago}" if link["last_error"] else None


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError("must be 0.1 to 86400 seconds")
    return seconds
