"""Round trips of one flow that sends 128 bytes and waits for their echo.

Client and echo server are blocking or epoll Python sockets: they add the same few microseconds to every
route, and the samples are all ours. sockperf was tried beside it: the same spread, which is the scheduler's.
The routes take turns of a fraction of a second within each round, each over a connection that stays open, so
that drift of the machine falls on all alike.

The figures ``1cpu`` repeat it with everything held on one CPU: no idle CPU has to wake up, so what is left is
the work that the route does. Floors apply to the first kind, which is what a user sees.
"""

from __future__ import annotations

import socket
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter_ns

from bench import service
from bench.metric import Metric, Sample
from bench.process import cpu_sec, on_one_cpu
from bench.rig import Route
from bench.routes import routes
from bench.scale import Scale

MESSAGE = b"x" * 128
WARM_UP = 20  # round trips untimed after each change of route: caches hold the other route's code

METRICS = (
    Metric("rtt median", "us", "lower", ratio_floor=1.25),
    Metric("rtt p99", "us", "lower", ratio_floor=1.25),
    Metric("cpu per round trip", "us", "lower"),
    Metric("rtt median, 1cpu", "us", "lower"),
    Metric("rtt p99, 1cpu", "us", "lower"),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo, routes(names, echo.address, folder) as ways:
        yield from compare(ways, echo.process.pid, scale)


def compare(ways: Sequence[Route], echo_pid: int, scale: Scale) -> Iterator[Sample]:
    """The routes in turn, free and on one CPU; they lead to the echo server of ``echo_pid``."""
    with ExitStack() as stack:
        clients = {way.name: stack.enter_context(connect(way)) for way in ways}
        pids = list({echo_pid, *(pid for way in ways for pid in way.pids.values())})
        _turns(ways, clients, scale)  # a first round that nobody reads
        for turn in range(scale.rounds):
            free = _turns(ways, clients, scale)
            with on_one_cpu(pids):
                held = _turns(ways, clients, scale)
            for way in ways:
                times, cpu = free[way.name]
                held_times, _ = held[way.name]
                yield (
                    turn,
                    way.name,
                    {
                        "rtt median": _quantile(times, 0.5),
                        "rtt p99": _quantile(times, 0.99),
                        "rtt median, 1cpu": _quantile(held_times, 0.5),
                        "rtt p99, 1cpu": _quantile(held_times, 0.99),
                        **({"cpu per round trip": cpu} if way.pids else {}),
                    },
                )


def connect(way: Route) -> socket.socket:
    client = socket.create_connection(way.address, timeout=10)
    client.settimeout(None)  # a timeout would cost a poll() a call
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _turns(
    ways: Sequence[Route], clients: dict[str, socket.socket], scale: Scale
) -> dict[str, tuple[list[int], float]]:
    """By route: all times in nanoseconds, sorted, and microseconds of CPU that the route spent on each."""
    times = {way.name: array("q") for way in ways}
    cpu = dict.fromkeys(times, 0.0)
    for _ in range(scale.blocks):
        for way in ways:
            before = sum(map(cpu_sec, way.pids.values()))
            try:
                times[way.name].extend(ping(clients[way.name], scale.pings))
            except OSError as exc:
                raise RuntimeError(f"the ping-pong flow over {way.name} broke off") from exc
            cpu[way.name] += sum(map(cpu_sec, way.pids.values())) - before
    trips = scale.blocks * (scale.pings + WARM_UP)
    return {name: (sorted(values), cpu[name] / trips * 1e6) for name, values in times.items()}


def ping(client: socket.socket, count: int) -> array:
    """Nanoseconds of each of ``count`` round trips."""
    times = array("q", bytes(8 * count))
    buffer = bytearray(len(MESSAGE))
    send, recv_into, now = client.send, client.recv_into, perf_counter_ns
    for index in range(-WARM_UP, count):
        start = now()
        send(MESSAGE)
        received = recv_into(buffer)
        while received < len(MESSAGE):
            more = recv_into(memoryview(buffer)[received:])
            if not more:
                raise ConnectionError("the route closed the ping-pong flow")
            received += more
        if index >= 0:
            times[index] = now() - start
    return times


def _quantile(ordered: Sequence[int], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e3
