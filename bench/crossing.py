"""A flow that crosses from the origin hub to the owner, beside one that comes in at the owner: round trips and streams.

The same as `bench.pingpong` and `bench.stream`, with one cluster's two ways in turn: `local` is client → owner → agent
→ service, `mesh` is client → origin → owner → agent → service.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import pingpong, service, stream
from bench.cluster import cluster
from bench.metric import Metric, Sample
from bench.rig import Route
from bench.scale import Scale

METRICS = (
    Metric("rtt p50", "us", "lower", ratio_floor=1.3),
    Metric("rtt p99", "us", "lower"),
    Metric("cpu per message", "us", "lower"),
    Metric("rtt p50, 1cpu", "us", "lower"),
    Metric("rtt p99, 1cpu", "us", "lower"),
    Metric("upload", "MB/s", "higher", ratio_floor=0.8),
    Metric("download", "MB/s", "higher", ratio_floor=0.8),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo, cluster(echo.address, folder) as made:
        owner, _, origin = made.settled()
        ways = {
            "local": Route("local", owner.address, {"owner": owner.pid, "agent": made.agent.pid}),
            "mesh": Route("mesh", origin.address, {"origin": origin.pid, "owner": owner.pid, "agent": made.agent.pid}),
        }
        for turn, name, values in pingpong.compare(list(ways.values()), echo.process.pid, scale):
            yield turn, name, values | stream.both_ways(ways[name], scale)
