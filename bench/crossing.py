"""A flow that crosses from the origin hub to the owner, beside one that comes in at the owner: round trips and streams.

The same as `bench.pingpong` and `bench.stream`, with one cluster's two ways in turn: `local` is client → owner → agent
→ service, `mesh` is client → origin → owner → agent → service.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import pingpong, service, stream
from bench.cluster import LOCAL, MESH, cluster
from bench.metric import Metric, Sample, Values
from bench.rig import Route
from bench.scale import Scale
from bench.turns import in_turn

REFERENCE = LOCAL
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
        pids = {"owner": owner.pid, "agent": made.agent.pid}
        ways = [Route(LOCAL, owner.address, pids), Route(MESH, origin.address, {"origin": origin.pid, **pids})]
        held = pingpong.all_pids(ways, echo.process.pid)
        yield from in_turn(scale.rounds, [LOCAL, MESH], ways, METRICS, partial(measure, scale, held))


def measure(scale: Scale, pids: Sequence[int], way: Route) -> Values:
    return pingpong.measure(scale, pids, way) | stream.both_ways(scale, way)
