"""Encrypted on the way between the two processes: ``redis-benchmark`` with 50 connections, one stream, connections.

Ratios are to two HAProxy processes that speak TLS to each other, a handshake for each connection of a client.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import redis, service, stream
from bench.load import load
from bench.metric import Metric, Sample
from bench.peers import PEERS
from bench.routes import REFERENCE as PLAIN
from bench.routes import ROUTES, TLS, routes
from bench.scale import Scale

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
        for turn in range(scale.rounds):
            for requests, bytes_ in zip(to_redis, to_echo, strict=True):
                churn = load("churn", bytes_, scale.load_sec, flows=50)
                yield (
                    turn,
                    requests.name,
                    {
                        **redis.figures(requests, scale.redis_requests, "-c 50"),
                        **stream.both_ways(bytes_, scale),
                        "connections, 50 at a time": churn.rate,
                        **churn.cpu_each("connections, cpu each"),
                    },
                )
