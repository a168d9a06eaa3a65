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
from dataclasses import replace
from pathlib import Path

from bench import iperf, pingpong, redis, service
from bench.rig import ROUTES, Route, routes
from bench.scale import FULL

SERVICES = {"pingpong": service.echo, "redis": service.redis,
            "upload": service.iperf, "download": service.iperf}
SAMPLES_PER_SEC = 1999      # not a divisor of any timer's period


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("load", choices=SERVICES)
    parser.add_argument("--route", choices=[name for name in ROUTES if name != "direct"], default="ncfast")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--lines", type=int, default=40, help="symbols shown of each process")
    parser.add_argument("--data", type=Path, help="keep perf's samples in this file")
    options = parser.parse_args()

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ncfast-profile-")))
        target = stack.enter_context(SERVICES[options.load](folder))
        (way,) = stack.enter_context(routes([options.route], target.address, folder))
        data = options.data or folder / "perf.data"
        record(options.load, way, data, options.seconds)
        for role, pid in way.pids.items():
            print(f"\n== {options.route}, {role} side, {options.load} ==")
            print("\n".join(report(data, pid)[:options.lines]))
    return 0


def record(load: str, way: Route, data: Path, seconds: int) -> None:
    """Samples the route's processes for ``seconds`` while the load runs."""
    perf = subprocess.Popen(
        ["perf", "record", "--quiet", "--event", "cpu-clock", "--freq", str(SAMPLES_PER_SEC),
         "--call-graph", "fp", "--pid", ",".join(map(str, way.pids.values())), "--output", str(data), "--", "sleep", str(seconds)])
    try:
        while perf.poll() is None:
            if load == "pingpong":
                with pingpong.connect(way) as client:
                    while perf.poll() is None:
                        pingpong.ping(client, 1000)
            elif load == "redis":
                redis.load(way, 10_000)
            else:
                iperf.load(way, replace(FULL, iperf_sec=seconds, iperf_omit_sec=0),
                           *(["--reverse"] if load == "download" else []))
    finally:
        perf.terminate()
        perf.wait()


def report(data: Path, pid: int) -> list[str]:
    """perf's flat list of one process, the most expensive symbol first."""
    done = subprocess.run(["perf", "report", "--input", str(data), "--pid", str(pid), "--stdio",
                           "--no-children", "--call-graph", "none", "--sort", "dso,symbol"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return [line.rstrip() for line in done.stdout.splitlines() if line.strip() and not line.startswith("#")]


if __name__ == "__main__":
    sys.exit(main())
