"""Resident memory of an idle flow, in the process that the client meets and in the one behind it.

Every flow has echoed one byte each way before it falls idle: it is fully established, and whatever its first
bytes needed has been given back or is counted. A few such flows stand before the first reading, so that what a
process allocates once is not charged to the flows. Socket memory of the kernel is not in these figures.
"""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import service
from bench.metric import Metric, Sample
from bench.process import resident_bytes
from bench.rig import Route
from bench.routes import routes
from bench.scale import Scale

WARM_UP = 32
BATCH = 64  # flows that open at the same time: below the hub's cap of 256 pending opens an agent
SETTLE_SEC = 1.0  # two readings this far apart must agree
SETTLE_ROUNDS = 15

METRICS = (
    Metric("near side (hub)", "KiB/flow", "lower", limit=12.0),
    Metric("far side (agent)", "KiB/flow", "lower"),
)
ROLES = {"near side (hub)": "near", "far side (agent)": "far"}


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    need = 2 * (scale.idle_flows + WARM_UP) + 200  # HAProxy holds two descriptors a flow
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < need:
        raise RuntimeError(f"{scale.idle_flows} idle flows need {need} descriptors; ulimit -Hn says {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # children inherit it
    for turn in range(scale.idle_rounds):
        for name in names:
            with service.echo(folder) as echo, routes([name], echo.address, folder) as (way,):
                if way.pids:  # the direct route has no process of its own
                    yield turn, name, measure(way, scale.idle_flows)


def measure(way: Route, flows: int) -> dict[str, float]:
    """KiB a flow by metric."""
    with ExitStack() as stack:
        open_flows(stack, way, WARM_UP)
        before = _settled(way)
        for start in range(0, flows, BATCH):
            open_flows(stack, way, min(BATCH, flows - start))
        after = _settled(way)
        return {metric: (after[role] - before[role]) / flows / 1024 for metric, role in ROLES.items()}


def open_flows(stack: ExitStack, way: Route, count: int) -> None:
    """Opens ``count`` flows, kept until ``stack`` closes, and returns when each has echoed its byte."""
    clients = [stack.enter_context(socket.create_connection(way.address, timeout=30)) for _ in range(count)]
    for client in clients:
        client.sendall(b"x")
    for client in clients:
        if client.recv(1) != b"x":
            raise ConnectionError(f"{way.name} closed a flow that should stay idle")


def _settled(way: Route) -> dict[str, int]:
    """Resident bytes by role, once they hold still to within 64 KiB."""
    last = _resident(way)
    for _ in range(SETTLE_ROUNDS):
        time.sleep(SETTLE_SEC)
        now = _resident(way)
        if all(abs(now[role] - last[role]) <= 65536 for role in now):
            return now
        last = now
    raise RuntimeError(f"memory of {way.name} does not settle: {last}")


def _resident(way: Route) -> dict[str, int]:
    return {role: resident_bytes(pid) for role, pid in way.pids.items()}
