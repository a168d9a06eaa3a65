"""Bytes a second of one stream, first towards the service, then from it; and what each gigabyte costs.

An upload is over when the service has all of it and has closed: what buffers on the way hold is not counted as moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import service
from bench.load import load
from bench.metric import Metric, Sample
from bench.rig import Route
from bench.routes import routes
from bench.scale import Scale

METRICS = (
    Metric("upload", "MB/s", "higher", ratio_floor=1.2),
    Metric("download", "MB/s", "higher", ratio_floor=1.2),
    Metric("upload, cpu per GB", "ms", "lower", ratio_floor=0.8),
    Metric("download, cpu per GB", "ms", "lower", ratio_floor=0.8),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo, routes(names, echo.address, folder) as ways:
        for turn in range(scale.rounds):
            for way in ways:
                yield turn, way.name, both_ways(way, scale)


def both_ways(way: Route, scale: Scale) -> dict[str, float]:
    values = {}
    for work in "upload", "download":
        done = load(work, way, scale.load_sec)
        values[work] = done.bytes / done.sec / 1e6
        if done.has_cpu:
            values[f"{work}, cpu per GB"] = done.route_cpu_sec / done.bytes * 1e12
    return values
