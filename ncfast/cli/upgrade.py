"""Put a new process in the place of a hub, or of an agent, that runs: whatever is installed now takes over connections,
flows and ports, and no client or service notices more than a pause.

As SIGUSR2 does, but over the admin edge. Nothing changes until the new process is ready; if it is not, the old one goes
on, and the command says why. It returns when the old one has handed over.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from ncfast.cli import hubs
from ncfast.cli.exitcode import ExitCode
from ncfast.observe import adminclient
from ncfast.observe.upgrading import UNDER_WAY

HELP = "upgrade a hub or an agent that runs"
_POLL_SEC = 0.1
_PATIENCE_SEC = 15.0  # without any answer: between two processes an admin edge is held for a moment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    hubs.add_url(parser)
    parser.add_argument(
        "--agent", action="store_true", help=f"an agent, at its own admin edge (default for --url: {hubs.AGENT})"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.agent and arguments.url == hubs.DEFAULT:
        arguments.url = hubs.AGENT
    at = hubs.place(arguments)
    since = time.monotonic()
    mine = adminclient.ask(at, "/upgrade", "POST")
    standing = mine
    while standing["id"] == mine["id"] and standing["state"] in UNDER_WAY:
        time.sleep(_POLL_SEC)
        standing = _standing(at)
    if standing["id"] != mine["id"]:
        print("ncfast: another process answers, and knows nothing of this upgrade", file=sys.stderr)
        return ExitCode.FAILURE
    if standing["state"] != "done":
        print(f"ncfast: {_WORDS[standing['state']]}: {standing['reason']}", file=sys.stderr)
        return ExitCode.FAILURE
    print(f"upgraded in {time.monotonic() - since:.1f} s")
    return ExitCode.OK


_WORDS = {"failed": "not upgraded, and the old process goes on", "cut": "the new process serves, but not all came over"}


def _standing(at: adminclient.Place) -> dict[str, Any]:
    """From whichever of the two answers. Raises Unavailable when neither does for long."""
    since = time.monotonic()
    while True:
        try:
            return adminclient.ask(at, "/upgrade/state")
        except adminclient.Unavailable:
            if time.monotonic() - since > _PATIENCE_SEC:
                raise
            time.sleep(_POLL_SEC)
