"""Connections a second, as clients that open one for each look-up make them: connect, 128 bytes, their echo, close.

One at a time shows what a connection takes, fifty at a time what it costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import service
from bench.load import load
from bench.metric import Metric, Sample
from bench.routes import routes
from bench.scale import Scale

MANY = 50
WARM_UP = 200  # connections

METRICS = (
    Metric("one at a time", "1/s", "higher", ratio_floor=0.7),
    Metric("one at a time, p50", "us", "lower"),
    Metric("one at a time, p99", "us", "lower"),
    Metric("one at a time, cpu each", "us", "lower", ratio_floor=1.8),
    Metric("50 at a time", "1/s", "higher", ratio_floor=0.8),
    Metric("50 at a time, p99", "us", "lower"),
    Metric("50 at a time, cpu each", "us", "lower", ratio_floor=1.5),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo, routes(names, echo.address, folder) as ways:
        for way in ways:
            load("churn", way, flows=MANY, count=WARM_UP)
        for turn in range(scale.rounds):
            for way in ways:
                one = load("churn", way, flows=1, sec=scale.load_sec)
                many = load("churn", way, flows=MANY, sec=scale.load_sec)
                values = {
                    "one at a time": one.rate,
                    "one at a time, p50": one.p50 / 1e3,
                    "one at a time, p99": one.p99 / 1e3,
                    "50 at a time": many.rate,
                    "50 at a time, p99": many.p99 / 1e3,
                }
                if way.pids:
                    values["one at a time, cpu each"] = one.route_cpu_sec / one.count * 1e6
                    values["50 at a time, cpu each"] = many.route_cpu_sec / many.count * 1e6
                yield turn, way.name, values
