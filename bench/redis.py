"""Requests a second of ``redis-benchmark``, SET and GET one after the other: 50 connections, the same with 16 requests
at a time on each, and 500 connections."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import service
from bench.metric import Metric, Sample, Values
from bench.process import cpu_sec
from bench.rig import Route
from bench.routes import routes
from bench.scale import Scale
from bench.turns import in_turn, tried

METRICS = (
    Metric("-c 50", "1/s", "higher", ratio_floor=1.3),
    Metric("-c 50, cpu per request", "us", "lower", ratio_floor=0.75),
    Metric("-c 50 -P 16", "1/s", "higher", ratio_floor=1.1),
    Metric("-c 50 -P 16, cpu per request", "us", "lower"),
    Metric("-c 500", "1/s", "higher", ratio_floor=1.4),
    Metric("-c 500, cpu per request", "us", "lower"),
)
LOADS = {"-c 50": 1, "-c 50 -P 16": 4, "-c 500": 1}
"""Options, and how many times the scale's number of requests."""


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.redis(folder) as redis, routes(names, redis.address, folder) as ways:
        for way in ways:
            tried(way.name, partial(load, way, scale.redis_requests // 5, "-c 50"))  # warm-up
        yield from in_turn(scale.rounds, names, ways, METRICS, partial(measure, scale))


def measure(scale: Scale, way: Route) -> Values:
    values: Values = {}
    for options, times in LOADS.items():
        values |= figures(way, scale.redis_requests * times, options)
    return values


def figures(way: Route, requests: int, options: str) -> Values:
    before = sum(map(cpu_sec, way.pids.values()))
    rate = load(way, requests, options)
    cpu = sum(map(cpu_sec, way.pids.values())) - before
    return {options: rate, **({f"{options}, cpu per request": cpu / (2 * requests) * 1e6} if way.pids else {})}


def load(way: Route, requests: int, options: str) -> float:
    """Requests a second, of ``requests`` of each command: all requests over all time, the harmonic mean."""
    host, port = way.address
    done = subprocess.run(
        [
            *("redis-benchmark", "-h", host, "-p", str(port)),
            *("-n", str(requests), "-t", "set,get", "--csv"),
            *options.split(),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    rates = [float(row["rps"]) for row in csv.DictReader(done.stdout.splitlines())]
    return len(rates) / sum(1 / rate for rate in rates)
