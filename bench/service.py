"""The services at the far end of every route."""

from __future__ import annotations

import contextlib
import random
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.process import Process, running
from bench.rig import ROOT, Address

BELOW_EPHEMERAL = range(20_000, 32_000)    # the kernel gives these to nobody who asks for port 0, or dials
_given: set[int] = set()


@dataclass(frozen=True)
class Service:
    address: Address
    process: Process


@contextlib.contextmanager
def echo(folder: Path) -> Iterator[Service]:
    with running([sys.executable, "-m", "bench.echo"], folder / "echo.log", cwd=ROOT) as process:
        port = process.wait_for(lambda line: int(line.split()[1]) if line.startswith("port ") else None)
        yield Service(("127.0.0.1", port), process)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[Service]:
    """redis-server without persistence."""
    port = free_port()
    with running(["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "",
                  "--appendonly", "no", "--dir", str(folder)], folder / "redis.log") as process:
        process.wait_for_text("Ready to accept connections")
        yield Service(("127.0.0.1", port), process)


def wait_until_iperf_is_free(server: Service) -> None:
    """A server answers one test at a time, and a proxy between may tell the client of its end first."""
    server.process.wait_until(
        lambda log: log.rfind("Server listening on") > log.rfind("Accepted connection") or None)


@contextlib.contextmanager
def iperf(folder: Path) -> Iterator[Service]:
    port = free_port()
    with running(["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(port), "--forceflush"],
                 folder / "iperf.log") as process:
        process.wait_for_text("Server listening on")
        yield Service(("127.0.0.1", port), process)


def free_port() -> int:
    """For programs that must be told their port, or that come back to it; never the same twice."""
    while True:
        port = random.choice(BELOW_EPHEMERAL)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
