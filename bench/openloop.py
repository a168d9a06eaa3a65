"""Messages of 128 bytes that come when they come: so many a second, over 50 flows in turn, and their echo.

Each has its time in a timetable, and counts from then whether or not earlier ones are back, so a pause costs every
message that was due in it (no coordinated omission). The sparse load leaves a route idle between two messages; the
dense one is near what two CPUs carry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import service
from bench.load import load
from bench.metric import Metric, Sample, Values
from bench.pingpong import all_pids
from bench.process import on_one_cpu
from bench.rig import Route
from bench.routes import routes
from bench.scale import Scale
from bench.turns import in_turn

FLOWS = 50
SPARSE = 2_000  # messages a second
DENSE = 20_500

METRICS = (
    Metric("2,000/s, p50", "us", "lower", ratio_floor=1.0),
    Metric("2,000/s, p99", "us", "lower", ratio_floor=1.0),
    Metric("2,000/s, p99.9", "us", "lower", ratio_floor=1.0),
    Metric("2,000/s, cpu per message", "us", "lower"),
    Metric("2,000/s, 1cpu, p50", "us", "lower"),
    Metric("2,000/s, 1cpu, cpu per message", "us", "lower"),
    Metric("20,500/s, p50", "us", "lower"),
    Metric("20,500/s, p99", "us", "lower", ratio_floor=1.0),
    Metric("20,500/s, p99.9", "us", "lower"),
    Metric("20,500/s, cpu per message", "us", "lower"),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo, routes(names, echo.address, folder) as ways:
        pids = all_pids(ways, echo.process.pid)
        yield from in_turn(scale.rounds, names, ways, METRICS, partial(measure, scale, pids))


def measure(scale: Scale, pids: Sequence[int], way: Route) -> Values:
    values: Values = {}
    for rate in SPARSE, DENSE:
        done = load("openloop", way, scale.load_sec, flows=FLOWS, rate=rate)
        values |= {
            f"{rate:,}/s, p50": done.p50,
            f"{rate:,}/s, p99": done.p99,
            f"{rate:,}/s, p99.9": done.p999,
            **done.cpu_each(f"{rate:,}/s, cpu per message"),
        }
    with on_one_cpu(pids):
        held = load("openloop", way, scale.load_sec, flows=FLOWS, rate=SPARSE)
    return values | {"2,000/s, 1cpu, p50": held.p50, **held.cpu_each("2,000/s, 1cpu, cpu per message")}
