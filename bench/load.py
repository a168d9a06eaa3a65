"""What ``bench/load.c`` measures: connections, round trips and streams over one route."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, replace

import orjson

from bench.compiled import program
from bench.metric import OURS, Values
from bench.process import cpu_sec
from bench.rig import Route

HANG_SEC = 60.0  # beyond the time that a load was given


@dataclass(frozen=True)
class Load:
    """One run; ``p50`` and so on in microseconds, from every sample. Warm-up is `asked`, but not counted."""

    asked: int
    count: int
    bytes: int
    sec: float
    p50: float
    p99: float
    p999: float
    route_cpu_sec: float  # of the route's processes meanwhile
    has_cpu: bool  # the route has processes
    carried: bool = True  # nothing failed; otherwise every figure is infinitely bad

    def refused(self) -> Load:
        """The same, as of a route that does not carry so much."""
        return replace(self, p50=math.inf, p99=math.inf, p999=math.inf, carried=False)

    @property
    def rate(self) -> float:
        """Samples a second of a load without warm-up."""
        return self.count / self.sec if self.carried else 0.0

    @property
    def megabytes(self) -> float:
        """A second."""
        return self.bytes / self.sec / 1e6 if self.carried else 0.0

    def cpu_each(self, name: str) -> Values:
        """Microseconds of CPU for each that was asked, as the figure ``name``."""
        return self._cpu(name, self.asked, 1e6)

    def cpu_per_gigabyte(self, name: str) -> Values:
        """Milliseconds, as the figure ``name``."""
        return self._cpu(name, self.bytes, 1e12)

    def _cpu(self, name: str, parts: int, unit: float) -> Values:
        if not self.has_cpu:
            return {}
        return {name: self.route_cpu_sec / parts * unit if self.carried else math.inf}


def command(work: str, way: Route, sec: float, **options: int) -> list[str]:
    letters = {"flows": "-c", "count": "-n", "size": "-s", "rate": "-r"}
    words = [word for name, value in options.items() for word in (letters[name], str(value))]
    return [program("load"), work, "-p", str(way.address[1]), "-t", str(sec), *words]


def load(work: str, way: Route, sec: float = 60.0, **options: int) -> Load:
    """Raises RuntimeError when a route of ours fails a connection, loses a message, or comes to no end, and when the
    generator fails. The others may not carry as much."""
    argv = command(work, way, sec, **options)
    before = sum(map(cpu_sec, way.pids.values()))
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=sec + HANG_SEC)
    except subprocess.TimeoutExpired:
        complaint = f"{' '.join(argv)} over {way.name} does not end"
        if way.name in OURS:
            raise RuntimeError(complaint) from None
        print(complaint, file=sys.stderr)
        return Load(1, 0, 0, sec, math.inf, math.inf, math.inf, 0.0, bool(way.pids), carried=False)
    cpu = sum(map(cpu_sec, way.pids.values())) - before
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} over {way.name} exited with {done.returncode}")
    got = orjson.loads(done.stdout)
    p50, p99, p999 = (got[name] / 1e3 for name in ("p50", "p99", "p999"))
    result = Load(got["asked"], got["count"], got["bytes"], got["sec"], p50, p99, p999, cpu, bool(way.pids))
    if not got["failed"]:
        return result
    complaint = f"{work} over {way.name}: {got['failed']} of {got['asked']} failed"
    if way.name in OURS:
        raise RuntimeError(complaint)
    print(complaint, file=sys.stderr)
    return result.refused()
