"""The flows of a hub one by one: the first by what is asked for, or one of them ended.

Without an action, or with `list`: those that hold most of the memory; or, by --order, the oldest, those that have moved
most, or those in which nothing has moved for longest. Flows of other hubs' clients, which this one only relays, are
among them. CLIENT shows what the log would show.

kill: the flow ends now; its client and its target see a reset, and what is on its way is lost. The access log calls it
`killed`.
"""

from __future__ import annotations

import argparse
import json
import urllib.parse
from typing import Any

from ncfast.cli import hubs
from ncfast.cli.exitcode import ExitCode
from ncfast.cli.table import table
from ncfast.observe import adminclient
from ncfast.observe.units import duration, size

HELP = "list the flows, or end one"
ORDERS = ("held", "age", "moved", "idle")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    hubs.add_url(parser)
    _add_query(parser)
    actions = parser.add_subparsers(metavar="action", dest="action")
    listing = actions.add_parser("list", help="list the flows", description=__doc__, allow_abbrev=False)
    hubs.add_url(listing, again=True)
    _add_query(listing, again=True)
    kill = actions.add_parser("kill", help="end a flow", description=__doc__, allow_abbrev=False)
    kill.add_argument("cid", metavar="CID", help="as the list and the log show it")
    hubs.add_url(kill, again=True)


def _add_query(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    unsaid = argparse.SUPPRESS if again else None
    parser.add_argument(
        "--order",
        choices=ORDERS,
        default=unsaid or "held",
        help="by bytes held, age, bytes moved, or time without any; the greatest first (default: held)",
    )
    parser.add_argument(
        "--top", type=int, default=unsaid or 20, metavar="N", help="how many, 1000 at most (default: 20)"
    )
    parser.add_argument("--listener", metavar="NAME", default=unsaid, help="those of one listener")
    parser.add_argument("--agent", metavar="AGENT", default=unsaid, help="those to one agent: its id, or tenant/id")
    parser.add_argument(
        "--client",
        metavar="ADDRESS",
        default=unsaid,
        help="those of one client, as it is shown; the port may be left out",
    )
    parser.add_argument("--json", action="store_true", default=unsaid or False, help="the document as the hub sends it")


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "kill":
        asked = urllib.parse.urlencode({"cid": arguments.cid})
        print(_killed(adminclient.ask(hubs.place(arguments), f"/flows/kill?{asked}", "POST")))
    else:
        document = adminclient.ask(hubs.place(arguments), f"/flows?{_query(arguments)}")
        print(json.dumps(document) if arguments.json else "\n".join(listed(document)))
    return ExitCode.OK


def _query(arguments: argparse.Namespace) -> str:
    asked = {"order": arguments.order, "top": arguments.top}
    asked |= {name: said for name in ("listener", "agent", "client") if (said := getattr(arguments, name)) is not None}
    return urllib.parse.urlencode(asked)


def _killed(row: dict[str, Any]) -> str:
    whose = row["client"] or f"a client of {row['hub'] or 'another hub'}"
    return f"{row['cid']}: killed, of {whose} to {row['agent_id'] or 'no agent yet'}, {size(row['held_bytes'])} held"


def listed(document: dict[str, Any]) -> list[str]:
    """The document of /flows, for a person."""
    memory, rows = document["memory"], document["flows"]
    lines = [
        f"{document['replica_id']}: {document['active']} flows, {document['relayed']} relayed for other hubs;"
        f" {document['matching']} as asked, which hold {size(document['matching_held_bytes'])}",
        f"memory  {size(memory['held_bytes'])} of {size(memory['budget_bytes'])} held,"
        f" {size(memory['relayed_bytes'])} of it relayed",
    ]
    return [*lines, "", *_table(rows)] if rows else lines


def _table(rows: list[dict[str, Any]]) -> list[str]:
    return table(
        ("CID", "LISTENER", "CLIENT", "AGENT", "PATH", "STATE", "AGE", "IDLE", "IN", "OUT", "HELD", "TO CLIENT"),
        [
            (
                each["cid"],
                each["listener"],
                each["client"],
                each["agent_id"],
                f"{each['path']} {each['hub']}" if each["hub"] else each["path"],
                "detached" if each["detached"] else each["state"],
                duration(each["age_sec"]),
                _or_none(duration, each["idle_sec"]),
                _or_none(size, each["bytes_in"]),
                _or_none(size, each["bytes_out"]),
                size(each["held_bytes"]),
                size(each["to_client_bytes"]),
            )
            for each in rows
        ],
    )


def _or_none(shown: Any, value: float | None) -> str | None:
    return None if value is None else shown(value)
