"""Requests a second of ``redis-benchmark`` with 50 connections, SET and GET one after the other."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import service
from bench.metric import Metric, Sample
from bench.process import cpu_sec
from bench.rig import Route
from bench.routes import routes
from bench.scale import Scale

METRICS = (
    Metric("requests", "1/s", "higher", ratio_floor=1.0),
    Metric("SET", "1/s", "higher"),
    Metric("GET", "1/s", "higher"),
    Metric("cpu per request", "us", "lower"),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.redis(folder) as redis, routes(names, redis.address, folder) as ways:
        for way in ways:
            load(way, scale.redis_requests // 5)  # warm-up
        for turn in range(scale.rounds):
            for way in ways:
                before = sum(map(cpu_sec, way.pids.values()))
                rates = load(way, scale.redis_requests)
                cpu = sum(map(cpu_sec, way.pids.values())) - before
                yield (
                    turn,
                    way.name,
                    {
                        # As many of each: all requests over the whole time is the harmonic mean.
                        "requests": 2 / (1 / rates["SET"] + 1 / rates["GET"]),
                        **rates,
                        **({"cpu per request": cpu / (2 * scale.redis_requests) * 1e6} if way.pids else {}),
                    },
                )


def load(way: Route, requests: int) -> dict[str, float]:
    """Requests a second by command."""
    host, port = way.address
    done = subprocess.run(
        ["redis-benchmark", "-h", host, "-p", str(port), "-c", "50", "-n", str(requests), "-t", "set,get", "--csv"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    return {row["test"]: float(row["rps"]) for row in csv.DictReader(done.stdout.splitlines())}
