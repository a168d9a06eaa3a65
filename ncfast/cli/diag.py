"""Pack what a hub, or an agent, tells of itself into one archive, to attach to a ticket.

In it are versions, the configuration, /status, /metrics, the flows that hold most, move most and are oldest, the last
lines of the log, the stacks of all threads and tasks, and the limits that the kernel sets. Nothing secret is: tokens,
keys and passwords are in none of it, and client addresses are masked as in the log.

The process must answer. One that stands still tells its stacks on SIGUSR1.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tarfile
import time
from typing import Any

from ncfast import __version__
from ncfast.cli import hubs
from ncfast.cli.exitcode import ExitCode
from ncfast.observe import adminclient

HELP = "pack what a hub or agent tells of itself, for a ticket"

PROCESS = {
    "process.json": "/diag/process",
    "config.json": "/diag/config",
    "stacks.json": "/diag/stacks",
    "log.txt": "/diag/log",
    "status.json": "/status",
    "metrics.txt": "/metrics",
}
FLOWS = {f"flows-{order}.json": f"/flows?order={order}&top=200" for order in ("held", "moved", "age", "idle")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    hubs.add_url(parser)
    parser.add_argument("--agent", action="store_true", help=f"of an agent, at its admin edge (default: {hubs.AGENT})")
    parser.add_argument(
        "--output", metavar="FILE", help="where to, - for standard output (default: ncfast-diag-TIME.tar.gz, here)"
    )


def run(arguments: argparse.Namespace) -> int:
    now = time.time()
    name = time.strftime("ncfast-diag-%Y%m%dT%H%M%SZ", time.gmtime(now))
    if arguments.agent and arguments.url == hubs.DEFAULT:
        arguments.url = hubs.AGENT
    files = PROCESS if arguments.agent else PROCESS | FLOWS
    about = {"of": "agent" if arguments.agent else "hub", "at": round(now, 3), "by": f"ncfast {__version__}"}
    place = hubs.place(arguments)
    parts = {"about.json": json.dumps(about, indent=2).encode() + b"\n"}
    parts |= {file: adminclient.fetch(place, path) for file, path in files.items()}
    archive = packed(name, parts, now)
    if arguments.output == "-":
        sys.stdout.buffer.write(archive)
        return ExitCode.OK
    output = arguments.output or f"{name}.tar.gz"
    with open(output, "xb", opener=_own) as file:
        file.write(archive)
    print(f"{output}: {len(parts)} files, {len(archive)} bytes")
    return ExitCode.OK


def packed(name: str, parts: dict[str, bytes], now: float) -> bytes:
    """A tar.gz of the parts, in a directory of that name."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for file, content in parts.items():
            member = tarfile.TarInfo(f"{name}/{file}")
            member.size, member.mtime, member.mode = len(content), int(now), 0o600
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def _own(path: Any, flags: int) -> int:
    """For us alone: it says who talks to whom, if nothing secret."""
    return os.open(path, flags, 0o600)
