"""From the start of the first process to the first byte that has gone to the service and back, and the memory then.

The client's side is started first; the other as soon as it can be taken in, as a script would. Keys, tokens and
files are made before. A client tries every millisecond, once there is somebody to try.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import service
from bench.metric import Metric, Sample
from bench.process import resident_bytes
from bench.rig import Address
from bench.routes import ROUTES
from bench.scale import Scale

PATIENCE_SEC = 30.0
AGAIN_SEC = 0.001

METRICS = (
    Metric("first byte", "ms", "lower", limit=300.0),
    Metric("near side (hub)", "MiB", "lower", limit=35.0),
    Metric("far side (agent)", "MiB", "lower", limit=35.0),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo:
        for turn in range(scale.rounds):
            for name in names:
                if name == "direct":
                    continue
                place = folder / f"{turn}-{name}"
                place.mkdir()
                with ROUTES[name](name, echo.address, place) as way:
                    served = first_byte(way.address)
                    values = {"first byte": (served - way.started) * 1e3}
                    for metric, role in (("near side (hub)", "near"), ("far side (agent)", "far")):
                        values[metric] = resident_bytes(way.pids[role]) / 2**20
                yield turn, name, values


def first_byte(address: Address) -> float:
    """When it has come back, by time.monotonic()."""
    deadline = time.monotonic() + PATIENCE_SEC
    while True:
        try:
            with socket.create_connection(address, timeout=PATIENCE_SEC) as client:
                client.sendall(b"x")
                if client.recv(1) == b"x":
                    return time.monotonic()
        except ConnectionError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing is served at {address} within {PATIENCE_SEC:g} s")
        time.sleep(AGAIN_SEC)
