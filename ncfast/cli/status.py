"""Show what a hub is doing, as its admin edge tells it at /status."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from ncfast.cli.exitcode import ExitCode
from ncfast.cli.table import duration, size, table

HELP = "show what a hub is doing"
_TIMEOUT_SEC = 5
_MAX_BYTES = 64 * 1024 * 1024  # ten thousand agents take some 4 MiB
_CLEAR = "\x1b[H\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        type=_admin_url,
        default="http://127.0.0.1:9400",
        help="the hub's admin edge (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="the document as the hub sends it")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_interval,
        const=2.0,
        metavar="SECONDS",
        help="again and again (default: every 2)",
    )


def run(arguments: argparse.Namespace) -> int:
    while True:
        try:
            document = _fetch(arguments.url)
            code, text = ExitCode.OK, json.dumps(document) if arguments.json else render(document)
        except _Unavailable as error:
            code, text = ExitCode.UNAVAILABLE, ""
            print(f"ncfast: {error}", file=sys.stderr)
        if text:
            clear = _CLEAR if arguments.watch and sys.stdout.isatty() and not arguments.json else ""
            print(clear + text, flush=True)
        if arguments.watch is None:
            return code
        time.sleep(arguments.watch)


class _Unavailable(Exception):
    """Nothing that answers like a hub's admin edge is there."""


def _fetch(base: str) -> dict[str, Any]:
    import http.client
    import urllib.request

    url = f"{base}/status"
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # an admin edge is never behind a proxy
    try:
        with opener.open(url, timeout=_TIMEOUT_SEC) as answer:
            document = json.loads(answer.read(_MAX_BYTES))
    except (OSError, http.client.HTTPException) as error:
        raise _Unavailable(f"no answer from {url}: {getattr(error, 'reason', error)}") from None
    except ValueError:
        raise _Unavailable(f"{url} does not answer with a hub's status; is this the admin edge?") from None
    if not isinstance(document, dict) or document.get("role") != "hub":
        raise _Unavailable(f"{url} does not answer with a hub's status; is this the admin edge?")
    return document


def render(status: dict[str, Any]) -> str:
    """The status document as text for a person."""
    ready, flows, moved, memory = (status[part] for part in ("ready", "flows", "bytes", "memory"))
    reasons = f" ({', '.join(ready['reasons'])})" if ready["reasons"] else ""
    endings = ", ".join(f"{reason} {count}" for reason, count in sorted(flows["closed"].items()))
    lines = [
        f"{status['replica_id']} (ncfast {status['version']}, pid {status['pid']}): {status['state']},"
        f" {ready['status']}{reasons}, up {duration(status['uptime_sec'])}",
        f"edge {status['edge']}   admin {status['admin']}   ha {status['mode']}",
        "",
        f"flows   {flows['active']} active, {flows['opening']} opening, {flows['detached']} detached,"
        f" {flows['held']} held   {flows['opened']} opened, {flows['resumed']} resumed",
        f"ended   {endings or 'none'}",
        f"bytes   {size(moved['client_in'])} from clients, {size(moved['client_out'])} to them",
        f"memory  {size(memory['held_bytes'])} of {size(memory['budget_bytes'])} held",
        "",
        *_listeners(status["listeners"]),
        "",
        *_agents(status["agents"]),
    ]
    return "\n".join(lines)


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
                each["epoch"],
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


def _admin_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("must start with http:// or https://")
    return text.rstrip("/")


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError("must be 0.1 to 86400 seconds")
    return seconds
