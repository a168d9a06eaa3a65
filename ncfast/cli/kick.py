"""Lock an agent out of the cluster for a time: its tunnels and flows end at once, at all hubs, and no hub lets it in.

The hub that is asked tells the others by the registry; while Redis is away it holds the lock itself, and they learn of
it when Redis is back. `--for 0` lifts the lock, as `ncfast unlock` does. A token that must never count again belongs
into `auth.jwt.deny`.
"""

from __future__ import annotations

import argparse
import re
import time
import urllib.parse

from ncfast.cli import hubs
from ncfast.cli.exitcode import ExitCode
from ncfast.observe import adminclient

HELP = "lock an agent out of the cluster"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"([0-9]{1,9})([smhd]?)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_agent(parser)
    parser.add_argument(
        "--for",
        dest="seconds",
        type=_time,
        default=3600,
        metavar="TIME",
        help="how long: 90s, 15m, 1h or 7d, 30d at most; 0 lifts the lock (default: 1h)",
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="shown beside the lock")


def add_agent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", metavar="AGENT", help="its id, or tenant/id")
    parser.add_argument("--tenant", metavar="NAME", help="its tenant, where several have an agent of that id")
    hubs.add_url(parser)


def run(arguments: argparse.Namespace) -> int:
    return ask(arguments, "/agents/kick", {"for": str(arguments.seconds), "reason": arguments.reason})


def ask(arguments: argparse.Namespace, path: str, more: dict[str, str]) -> int:
    """Asks the hub, and says what it answers."""
    asked = {"agent": arguments.agent} | ({"tenant": arguments.tenant} if arguments.tenant else {}) | more
    answer = adminclient.ask(hubs.place(arguments), f"{path}?{urllib.parse.urlencode(asked)}", "POST")
    if not answer["locked"]:
        print(f"{answer['agent']}: let in again")
        return ExitCode.OK
    until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(answer["until"]))
    unknown = "" if answer["known"] else "; no hub of the cluster has an agent of that name now"
    print(f"{answer['agent']}: locked out until {until}{unknown}")
    return ExitCode.OK


def _time(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("must be a number with s, m, h or d: 90s, 15m, 1h, 7d")
    return int(match[1]) * _UNITS[match[2]]
