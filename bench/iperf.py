"""Bytes a second of one ``iperf3`` stream, first towards the service, then from it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from bench import service
from bench.metric import Metric, Sample
from bench.process import cpu_sec
from bench.rig import Route
from bench.routes import routes
from bench.scale import Scale

METRICS = (
    Metric("upload", "MB/s", "higher", ratio_floor=0.8),
    Metric("download", "MB/s", "higher", ratio_floor=0.8),
    Metric("upload cpu per MB", "us", "lower"),
    Metric("download cpu per MB", "us", "lower"),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.iperf(folder) as iperf, routes(names, iperf.address, folder) as ways:
        for turn in range(scale.rounds):
            for way in ways:
                values = {}
                for metric, options in (("upload", ()), ("download", ("--reverse",))):
                    before = sum(map(cpu_sec, way.pids.values()))
                    rate, moved = load(way, iperf, scale, *options)
                    values[metric] = rate / 1e6
                    if way.pids:
                        cpu = sum(map(cpu_sec, way.pids.values())) - before
                        values[f"{metric} cpu per MB"] = cpu / moved * 1e12
                yield turn, way.name, values


def load(way: Route, server: service.Service, scale: Scale, *options: str) -> tuple[float, float]:
    """Bytes a second as the receiver saw them, and about how many were moved, omitted seconds included."""
    service.wait_until_iperf_is_free(server)
    host, port = way.address
    done = subprocess.run(
        [
            "iperf3",
            "--client",
            host,
            "--port",
            str(port),
            "--json",
            "--no-delay",
            "--time",
            str(scale.iperf_sec),
            "--omit",
            str(scale.iperf_omit_sec),
            *options,
        ],
        stdout=subprocess.PIPE,
        timeout=scale.iperf_sec + scale.iperf_omit_sec + 30,
    )
    report = orjson.loads(done.stdout)
    if "error" in report:  # the exit code is 0 for some errors
        raise RuntimeError(f"iperf3 over {way.name}: {report['error']}")
    rate = report["end"]["sum_received"]["bits_per_second"] / 8
    return rate, rate * (scale.iperf_sec + scale.iperf_omit_sec)
