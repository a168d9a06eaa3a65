"""Connections a second, as clients that open one for each look-up make them: connect, 128 bytes, their echo, close.

One at a time shows what a connection takes, fifty at a time what it costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import service
from bench.load import load
from bench.metric import Metric, Sample, Values
from bench.rig import Route
from bench.routes import routes
from bench.scale import Scale
from bench.turns import in_turn, tried

WARM_UP = 200  # connections
FLOWS = {"1 at a time": 1, "50 at a time": 50}

METRICS = (
    Metric("1 at a time", "1/s", "higher", ratio_floor=0.7),
    Metric("1 at a time, p50", "us", "lower"),
    Metric("1 at a time, p99", "us", "lower"),
    Metric("1 at a time, cpu each", "us", "lower", ratio_floor=1.8),
    Metric("50 at a time", "1/s", "higher", ratio_floor=0.8),
    Metric("50 at a time, p99", "us", "lower"),
    Metric("50 at a time, cpu each", "us", "lower", ratio_floor=1.5),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo, routes(names, echo.address, folder) as ways:
        for way in ways:
            tried(way.name, partial(load, "churn", way, flows=50, count=WARM_UP))
        yield from in_turn(scale.rounds, names, ways, METRICS, partial(measure, scale))


def measure(scale: Scale, way: Route) -> Values:
    values: Values = {}
    for name, flows in FLOWS.items():
        done = load("churn", way, scale.load_sec, flows=flows)
        values |= {name: done.rate, f"{name}, p50": done.p50, f"{name}, p99": done.p99}
        values |= done.cpu_each(f"{name}, cpu each")
    return values
