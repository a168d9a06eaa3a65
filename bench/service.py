"""The services at the far end of every route."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.compiled import program
from bench.ports import free_port
from bench.process import Process, running
from bench.rig import Address


@dataclass(frozen=True)
class Service:
    address: Address
    process: Process


@contextmanager
def echo(folder: Path) -> Iterator[Service]:
    """``bench/service.c``: an echo, and for streams a sink and a flood."""
    with running([program("service")], folder / "service.log") as process:
        port = process.wait_for(lambda line: int(line.split()[1]) if line.startswith("port ") else None)
        yield Service(("127.0.0.1", port), process)


@contextmanager
def redis(folder: Path) -> Iterator[Service]:
    """redis-server without persistence."""
    port = free_port()
    with running(
        [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(folder),
        ],
        folder / "redis.log",
    ) as process:
        process.wait_for_text("Ready to accept connections")
        yield Service(("127.0.0.1", port), process)
