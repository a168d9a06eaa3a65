"""Round trips of one flow that sends 128 bytes and waits for their echo.

The figures ``1cpu`` repeat it with everything held on one CPU: no idle CPU has to wake up, so what is left is
the work that the route does. Floors apply to the first kind, which is what a user sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import service
from bench.load import load
from bench.metric import Metric, Sample, Values
from bench.process import on_one_cpu
from bench.rig import Route
from bench.routes import routes
from bench.scale import Scale
from bench.turns import in_turn

METRICS = (
    Metric("rtt p50", "us", "lower", ratio_floor=1.0),
    Metric("rtt p99", "us", "lower", ratio_floor=1.0),
    Metric("cpu per message", "us", "lower", ratio_floor=1.1),
    Metric("rtt p50, 1cpu", "us", "lower"),
    Metric("rtt p99, 1cpu", "us", "lower"),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo, routes(names, echo.address, folder) as ways:
        pids = all_pids(ways, echo.process.pid)
        yield from in_turn(scale.rounds, names, ways, METRICS, partial(measure, scale, pids))


def all_pids(ways: Sequence[Route], echo_pid: int) -> list[int]:
    return list({echo_pid, *(pid for way in ways for pid in way.pids.values())})


def measure(scale: Scale, pids: Sequence[int], way: Route) -> Values:
    """Free, and with all of ``pids`` on one CPU."""
    free = load("pingpong", way, scale.load_sec)
    with on_one_cpu(pids):
        held = load("pingpong", way, scale.load_sec)
    return {
        "rtt p50": free.p50,
        "rtt p99": free.p99,
        **free.cpu_each("cpu per message"),
        "rtt p50, 1cpu": held.p50,
        "rtt p99, 1cpu": held.p99,
    }
