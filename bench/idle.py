"""Idle flows: what each takes of memory in the process that the client meets and in the one behind it, and what all of
them do to a flow beside them.

Every flow has echoed one byte each way before it falls idle: it is fully established, and whatever its first
bytes needed has been given back or is counted. A few such flows stand before the first reading, so that what a
process allocates once is not charged to the flows. Socket memory of the kernel is not in these figures. A peer that
ends a flow for being idle does not carry this work: its figures are infinite.
"""

from __future__ import annotations

import resource
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import service
from bench.load import load
from bench.metric import Metric, Sample, Values
from bench.process import cpu_sec, resident_bytes
from bench.rig import Route
from bench.routes import routes
from bench.scale import Scale
from bench.turns import carried

WARM_UP = 32
BATCH = 64  # flows that open at the same time: below the hub's cap of 256 pending opens an agent
OTHERS = 400  # descriptors of a process that belong to no idle flow
SETTLE_SEC = 0.4  # two readings this far apart must agree
SETTLE_ROUNDS = 40
BLOCKS = 5  # of round trips, without and with
BLOCK_SEC = 0.1

METRICS = (
    Metric("near side (hub)", "KiB/flow", "lower", limit=4.0),
    Metric("far side (agent)", "KiB/flow", "lower", limit=4.0),
    Metric("cpu while idle", "ms/s", "lower"),
    Metric("rtt p50 beside, of alone", "", "lower"),
    Metric("rtt p99 beside, of alone", "", "lower", limit=1.1),
)
ROLES = {"near side (hub)": "near", "far side (agent)": "far"}


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    flows = min(scale.idle_flows, may_stand())
    for turn in range(scale.rounds):
        for name in names:
            if name != "direct":  # it has no process of its own
                yield turn, name, carried(name, METRICS, partial(measure_one, name, flows, scale, folder / f"{turn}"))


def measure_one(name: str, flows: int, scale: Scale, folder: Path) -> Values:
    """A route with a service of its own: descriptors are few."""
    folder.mkdir(exist_ok=True)
    with service.echo(folder) as echo, routes([name], echo.address, folder) as (way,):
        return measure(way, flows, scale)


def may_stand() -> int:
    """Flows that descriptors allow; all that may be had are asked for, which children inherit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (hard - OTHERS) // 2  # HAProxy holds two a flow


def measure(way: Route, flows: int, scale: Scale) -> Values:
    """Raises RuntimeError or OSError when a flow does not stand, or memory does not settle."""
    with ExitStack() as stack:
        open_flows(stack, way, WARM_UP)
        by_itself = round_trips(way, scale)
        before = _settled(way)
        idle = open_flows(stack, way, flows)
        after = _settled(way)
        cpu = idle_cpu(way, scale.load_sec)
        beside = round_trips(way, scale)
        check_standing(idle, way)
        return {
            **{metric: (after[role] - before[role]) / flows / 1024 for metric, role in ROLES.items()},
            "cpu while idle": cpu,
            "rtt p50 beside, of alone": beside[0] / by_itself[0],
            "rtt p99 beside, of alone": beside[1] / by_itself[1],
        }


def round_trips(way: Route, scale: Scale) -> tuple[float, float]:
    """p50 and p99 of one flow."""
    done = [load("pingpong", way, min(BLOCK_SEC, scale.load_sec)) for _ in range(BLOCKS)]
    if not all(each.carried for each in done):
        raise RuntimeError("a round trip failed")
    return statistics.median(each.p50 for each in done), statistics.median(each.p99 for each in done)


def idle_cpu(way: Route, sec: float) -> float:
    """Milliseconds of CPU that all processes of the route take in a second."""
    before = sum(map(cpu_sec, way.pids.values()))
    time.sleep(sec)
    return (sum(map(cpu_sec, way.pids.values())) - before) / sec * 1e3


def open_flows(stack: ExitStack, way: Route, flows: int) -> list[socket.socket]:
    """Opens them, kept until ``stack`` closes, and returns their clients when each has echoed its byte."""
    return [client for start in range(0, flows, BATCH) for client in _open_batch(stack, way, min(BATCH, flows - start))]


def _open_batch(stack: ExitStack, way: Route, count: int) -> list[socket.socket]:
    clients = [stack.enter_context(socket.create_connection(way.address, timeout=30)) for _ in range(count)]
    for client in clients:
        client.sendall(b"x")
    for client in clients:
        if client.recv(1) != b"x":
            raise ConnectionError(f"{way.name} closed a flow that should stay idle")
    return clients


def check_standing(clients: list[socket.socket], way: Route) -> None:
    """Raises ConnectionError when a flow has ended: what is closed takes no memory, and would be counted as little."""
    for client in clients:
        client.setblocking(False)
        try:
            client.recv(1)
        except BlockingIOError:
            continue
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
