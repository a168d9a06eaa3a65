"""Bytes a second of one stream, first towards the service, then from it; and what each gigabyte costs.

An upload is over when the service has all of it and has closed: what buffers on the way hold is not counted as moved.
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
from bench.turns import in_turn

METRICS = (
    Metric("upload", "MB/s", "higher", ratio_floor=1.2),
    Metric("download", "MB/s", "higher", ratio_floor=1.2),
    Metric("upload, cpu per GB", "ms", "lower", ratio_floor=0.8),
    Metric("download, cpu per GB", "ms", "lower", ratio_floor=0.8),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo, routes(names, echo.address, folder) as ways:
        yield from in_turn(scale.rounds, names, ways, METRICS, partial(both_ways, scale))


def both_ways(scale: Scale, way: Route) -> Values:
    values: Values = {}
    for work in "upload", "download":
        done = load(work, way, scale.load_sec)
        values |= {work: done.megabytes, **done.cpu_per_gigabyte(f"{work}, cpu per GB")}
    return values
