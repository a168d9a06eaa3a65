"""``python -m bench.profile pingpong``: where hub and agent spend their time under one benchmark's load.

Uses ``perf`` (Debian: linux-perf) with the CPU clock as its event, so it needs no hardware counters. Cython
modules show up as symbols of their own shared objects, the interpreter's own work as symbols of libpython.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import openloop, redis, service
from bench.load import load as carry
from bench.rig import Route
from bench.routes import ROUTES, routes

ECHOED = ["churn", "pingpong", "openloop", "upload", "download"]
SERVICES = dict.fromkeys(ECHOED, service.echo) | {"redis": service.redis}
LOADS = {"churn": {"flows": 50}, "openloop": {"flows": openloop.FLOWS, "rate": openloop.SPARSE}}
SAMPLES_PER_SEC = 1999  # not a divisor of any timer's period


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("load", choices=SERVICES)
    parser.add_argument("--route", choices=[name for name in ROUTES if name != "direct"], default="ncfast")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--lines", type=int, default=40, help="symbols shown of each process")
    parser.add_argument("--keep", type=Path, help="folder to keep perf's samples in")
    options = parser.parse_args()

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ncfast-profile-")))
        target = stack.enter_context(SERVICES[options.load](folder))
        (way,) = stack.enter_context(routes([options.route], target.address, folder))
        kept = options.keep or folder
        record(options.load, way, kept, options.seconds)
        for role in way.pids:
            print(f"\n== {options.route}, {role} side, {options.load}: by object, by symbol ==")
            data = samples_of(kept, role)
            print("\n".join([*report(data, "dso")[:12], "", *report(data, "symbol,dso")[: options.lines]]))
    return 0


def samples_of(folder: Path, role: str) -> Path:
    return folder / f"{role}.perf.data"


def record(load: str, way: Route, folder: Path, seconds: int) -> None:
    """Samples each process of the route for ``seconds`` while the load runs."""
    recorders = [
        subprocess.Popen(
            [
                "perf",
                "record",
                "--quiet",
                "--event",
                "cpu-clock",
                "--freq",
                str(SAMPLES_PER_SEC),
                "--call-graph",
                "fp",
                "--pid",
                str(pid),
                "--output",
                str(samples_of(folder, role)),
                "--",
                "sleep",
                str(seconds),
            ]
        )
        for role, pid in way.pids.items()
    ]

    def recording() -> bool:
        return any(recorder.poll() is None for recorder in recorders)

    try:
        while recording():
            if load == "redis":
                redis.load(way, 10_000, "-c 50")
            else:
                carry(load, way, 0.5, **LOADS.get(load, {}))
    finally:
        for recorder in recorders:
            recorder.terminate()
            recorder.wait()


def report(data: Path, sort: str) -> list[str]:
    """perf's flat list, the most expensive entry first."""
    done = subprocess.run(
        [
            "perf",
            "report",
            "--input",
            str(data),
            "--stdio",
            "--no-children",
            "--call-graph",
            "none",
            "--fields",
            f"overhead,{sort}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return [line.rstrip() for line in done.stdout.splitlines() if line.strip() and not line.startswith("#")]


if __name__ == "__main__":
    sys.exit(main())
