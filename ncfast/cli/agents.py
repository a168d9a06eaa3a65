"""Move an agent from the hub that owns it to another: `ncfast agents move AGENT [HUB]`.

Asked over the admin edge of the hub that owns it. The agent moves when it has a tunnel to the other hub, as when a hub
drains: no flow is lost. Without HUB it is the one that has the fewest for its weight.
"""

from __future__ import annotations

import argparse
import sys
import urllib.parse

from ncfast.cli import hubs
from ncfast.cli.exitcode import ExitCode
from ncfast.observe import adminclient

HELP = "move an agent to another hub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="action", required=True)
    move = actions.add_parser("move", help=HELP, description=__doc__, allow_abbrev=False)
    move.add_argument("agent", metavar="AGENT", help="its id, or tenant/id")
    move.add_argument("hub", metavar="HUB", nargs="?", help="replica_id of the hub that is to own it")
    hubs.add_url(move)


def run(arguments: argparse.Namespace) -> int:
    asked = {"agent": arguments.agent} | ({"hub": arguments.hub} if arguments.hub else {})
    try:
        answer = adminclient.ask(arguments.url, f"/agents/move?{urllib.parse.urlencode(asked)}", "POST")
    except adminclient.Unavailable as error:
        print(f"ncfast: {error}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    except adminclient.Refused as error:
        print(f"ncfast: {error}", file=sys.stderr)
        return ExitCode.FAILURE
    print(f"{answer['agent']}: asked to move to {answer['hub']}")
    return ExitCode.OK
