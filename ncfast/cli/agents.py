"""The agents of the cluster, as a hub knows them: list them, with their locks, or ask one to move.

Without an action, or with `list`: each agent with the hub that owns it, its epoch and connectors, and the agents that
are locked out, for how long and why.

move: the agent takes its flows over its warm tunnel to the other hub, as when a hub drains: no flow is lost. Without
HUB it is the one that has the fewest for its weight.
"""

from __future__ import annotations

import argparse
import urllib.parse
from typing import Any

from ncfast.cli import hubs
from ncfast.cli.exitcode import ExitCode
from ncfast.cli.table import table
from ncfast.observe import adminclient
from ncfast.observe.units import duration

HELP = "list the agents, or move one to another hub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    hubs.add_url(parser)
    actions = parser.add_subparsers(metavar="action", dest="action")
    listing = actions.add_parser("list", help="list the agents", description=__doc__, allow_abbrev=False)
    hubs.add_url(listing, again=True)
    move = actions.add_parser("move", help="move an agent to another hub", description=__doc__, allow_abbrev=False)
    move.add_argument("agent", metavar="AGENT", help="its id, or tenant/id")
    move.add_argument("hub", metavar="HUB", nargs="?", help="replica_id of the hub that is to own it")
    hubs.add_url(move, again=True)


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "move":
        print(_move(arguments))
    else:
        print("\n".join(listed(adminclient.status(hubs.place(arguments)))))
    return ExitCode.OK


def _move(arguments: argparse.Namespace) -> str:
    asked = {"agent": arguments.agent} | ({"hub": arguments.hub} if arguments.hub else {})
    answer = adminclient.ask(hubs.place(arguments), f"/agents/move?{urllib.parse.urlencode(asked)}", "POST")
    return f"{answer['agent']}: asked to move to {answer['hub']}"


def listed(status: dict[str, Any]) -> list[str]:
    """The agents of a status document; those that are locked out too, which no hub owns."""
    cluster = status.get("cluster")
    rows = (
        cluster["agents"]
        if cluster is not None
        else [one | {"owner": status["replica_id"]} for one in status["agents"] if not one["standby"]]
    )
    locks = {(one["tenant"], one["agent_id"]): one for one in status.get("locks", [])}
    lines = [
        (
            one["agent_id"] + (" (draining)" if one["draining"] else ""),
            one["tenant"],
            one["owner"],
            one["epoch"],
            ",".join(one["connectors"]) or None,
            _lock(locks.pop((one["tenant"], one["agent_id"]), None)),
        )
        for one in rows
    ]
    lines += [(one["agent_id"], one["tenant"], None, None, None, _lock(one)) for one in locks.values()]
    if not lines:
        return ["no agents"]
    return table(("AGENT", "TENANT", "OWNER", "EPOCH", "CONNECTORS", "LOCKED FOR"), sorted(lines, key=str))


def _lock(lock: dict[str, Any] | None) -> str | None:
    if lock is None:
        return None
    return duration(max(0, lock["left_sec"])) + (f" ({lock['reason']})" if lock["reason"] else "")
