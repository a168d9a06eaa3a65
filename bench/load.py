"""What ``bench/load.c`` measures: connections, round trips and streams over one route."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import orjson

from bench.compiled import program
from bench.process import cpu_sec
from bench.rig import Address, Route

HANG_SEC = 60.0  # beyond the time that a load was given


@dataclass(frozen=True)
class Load:
    """One run. Times of samples in nanoseconds; ``route_cpu_sec`` is that of the route's processes meanwhile."""

    count: int
    failed: int
    sec: float
    bytes: int
    cpu_sec: float
    p50: int
    p99: int
    p999: int
    max: int
    asked: int
    route_cpu_sec: float

    @property
    def rate(self) -> float:
        """Samples a second; of a run none of which was left out as warm-up."""
        return self.count / self.sec


def command(
    work: str,
    address: Address,
    flows: int = 1,
    count: int | None = None,
    size: int = 128,
    rate: int | None = None,
    sec: float = 60.0,
) -> list[str]:
    argv = [program("load"), work, "-p", str(address[1]), "-c", str(flows), "-s", str(size), "-t", str(sec)]
    if count is not None:
        argv += ["-n", str(count)]
    if rate is not None:
        argv += ["-r", str(rate)]
    return argv


def load(work: str, way: Route, sec: float = 60.0, **options: int) -> Load:
    """Raises RuntimeError when the route did not carry all of it: figures of a route that fails are none."""
    argv = command(work, way.address, sec=sec, **options)
    before = sum(map(cpu_sec, way.pids.values()))
    done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=sec + HANG_SEC)
    cpu = sum(map(cpu_sec, way.pids.values())) - before
    if done.returncode:
        raise RuntimeError(f"{work} over {way.name} exited with {done.returncode}")
    result = Load(**orjson.loads(done.stdout), route_cpu_sec=cpu)
    if result.failed:
        raise RuntimeError(f"{work} over {way.name}: {result.failed} of {result.asked} failed")
    return result
