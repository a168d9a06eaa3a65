"""Drain a hub: balancers see it leave, then it takes nothing new, tells its agents to move, lets its flows finish, and
ends with 0.

As SIGTERM does, but over the admin edge; with --now it does not wait for drain.delay_sec. With --wait the command
returns when the hub has ended: the step of a rolling restart before the next hub.
"""

from __future__ import annotations

import argparse
import sys
import time

from ncfast.cli import hubs
from ncfast.cli.exitcode import ExitCode
from ncfast.observe import adminclient

HELP = "drain a hub"
_POLL_SEC = 0.1
_WAIT_SEC = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    hubs.add_url(parser)
    parser.add_argument(
        "--now", action="store_true", help="do not wait for balancers to notice (drain.delay_sec), or no longer"
    )
    parser.add_argument(
        "--wait",
        nargs="?",
        type=_seconds,
        const=_WAIT_SEC,
        metavar="SECONDS",
        help=f"until the hub has ended, so long at most (default: {_WAIT_SEC:.0f})",
    )


def run(arguments: argparse.Namespace) -> int:
    before = adminclient.status(hubs.place(arguments))
    adminclient.ask(hubs.place(arguments), "/drain?delay=off" if arguments.now else "/drain", "POST")
    name, flows = before["replica_id"], before["flows"]
    relayed = f", {flows['relayed']} relayed for other hubs" if flows.get("relayed") else ""
    print(f"{name}: draining, {flows['active']} flows active{relayed}", flush=True)
    if arguments.wait is None:
        return ExitCode.OK
    since = time.monotonic()
    while _runs(hubs.place(arguments), before["pid"]):
        if time.monotonic() - since > arguments.wait:
            print(f"ncfast: {name} still drains after {arguments.wait:g} s", file=sys.stderr)
            return ExitCode.FAILURE
        time.sleep(_POLL_SEC)
    print(f"{name}: ended after {time.monotonic() - since:.1f} s")
    return ExitCode.OK


def _runs(at: adminclient.Place, pid: int) -> bool:
    """Whether that process still answers; a supervisor may have started the next one already."""
    try:
        return adminclient.status(at)["pid"] == pid
    except adminclient.Unavailable:
        return False


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 86400 seconds")
    return seconds
