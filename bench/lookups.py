"""Commands that Redis carries out for each new flow across the mesh, with a warm view.

Presence, pulls and the sweeper ask Redis at their own pace, the slowest every five seconds. So each round counts over
two such times, once while flows open and once while none does; the difference belongs to the flows, and the noise, a
few commands, is spread over thousands of them. Commands inside scripts count as well.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import redis

from bench import service
from bench.cluster import LOCAL, MESH, Cluster, Hub, cluster
from bench.metric import Metric, Sample
from bench.scale import Scale

WARM_UP = 10
BATCH = 20
ASKING = frozenset({"cmdstat_info", "cmdstat_client|setinfo", "cmdstat_hello"})

REFERENCE = LOCAL
METRICS = (
    Metric("commands per new flow", "", "lower", limit=0.01),
    Metric("commands while flows open", "1/s", "lower"),
    Metric("commands while none opens", "1/s", "lower"),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo, cluster(echo.address, folder) as made:
        _, _, origin = made.settled()
        open_flows(origin, WARM_UP)
        for turn in range(scale.rounds):
            before, start, flows = commands(made), time.monotonic(), 0
            while (took := time.monotonic() - start) < scale.lookup_sec:
                open_flows(origin, BATCH)
                flows += BATCH
            middle = commands(made)
            time.sleep(took)
            busy, idle = middle - before, commands(made) - middle
            yield (
                turn,
                MESH,
                {
                    "commands per new flow": (busy - idle) / flows,
                    "commands while flows open": busy / took,
                    "commands while none opens": idle / took,
                },
            )


def open_flows(hub: Hub, count: int) -> None:
    """One after the other: connect, a byte and its echo, close."""
    for _ in range(count):
        with socket.create_connection(hub.address, timeout=30) as client:
            client.sendall(b"x")
            if client.recv(1) != b"x":
                raise ConnectionError(f"{hub.name} refused a flow")


def commands(made: Cluster) -> int:
    """Carried out so far, but for the asking itself."""
    with redis.Redis(*made.registry.address) as client:
        return sum(entry["calls"] for name, entry in client.info("commandstats").items() if name not in ASKING)
