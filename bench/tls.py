"""Encrypted on the way between the two processes: ``redis-benchmark`` with 50 connections, one stream, connections.

Ratios are to two HAProxy processes that speak TLS to each other, a handshake for each connection of a client.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import redis, service, stream
from bench.load import load
from bench.metric import Metric, Sample, Values
from bench.peers import PEERS
from bench.rig import Route
from bench.routes import REFERENCE as PLAIN
from bench.routes import ROUTES, TLS, routes
from bench.scale import Scale
from bench.turns import in_turn

REFERENCE = PLAIN + TLS

METRICS = (
    Metric("-c 50", "1/s", "higher"),
    Metric("-c 50, cpu per request", "us", "lower"),
    *(Metric(metric.name, metric.unit, metric.better) for metric in stream.METRICS),
    Metric("connections, 50 at a time", "1/s", "higher"),
    Metric("connections, cpu each", "us", "lower"),
)


def encrypted(name: str) -> str | None:
    """The route that does encrypt what ``name`` does not; itself where it always does."""
    if name + TLS in ROUTES:
        return name + TLS
    return name if name in PEERS or name.endswith(TLS) else None


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    names = list(dict.fromkeys(each for name in names if (each := encrypted(name))))
    with (
        service.echo(folder) as echo,
        service.redis(folder) as store,
        routes(names, store.address, folder / "redis") as to_redis,
        routes(names, echo.address, folder / "echo") as to_echo,
    ):
        beside = {way.name: way for way in to_redis}
        yield from in_turn(scale.rounds, names, to_echo, METRICS, lambda way: measure(scale, beside[way.name], way))


def measure(scale: Scale, to_redis: Route, to_echo: Route) -> Values:
    churn = load("churn", to_echo, scale.load_sec, flows=50)
    return {
        **redis.figures(to_redis, scale.redis_requests, "-c 50"),
        **stream.both_ways(scale, to_echo),
        "connections, 50 at a time": churn.rate,
        **churn.cpu_each("connections, cpu each"),
    }
