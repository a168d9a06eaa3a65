"""From the start of the first process to the first byte that has gone to the service and back, and the memory then.

The client's side is started first, and the other at once where it tries until it is taken in (HAProxy, ncfast), or as
soon as it can be. Keys, tokens, files and bytecode are made before. A client tries every millisecond, once there is
somebody to try.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import service
from bench.metric import Metric, Sample, Values
from bench.process import resident_bytes
from bench.rig import Address
from bench.routes import ROUTES
from bench.scale import Scale
from bench.served import until_served
from bench.turns import carried

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
                yield turn, name, carried(name, METRICS, partial(measure, name, echo.address, place))


def measure(name: str, service: Address, folder: Path) -> Values:
    with ROUTES[name](name, service, folder) as way:
        until_served(way.address, PATIENCE_SEC, AGAIN_SEC)
        values = {"first byte": (time.monotonic() - way.started) * 1e3}
        for metric, role in (("near side (hub)", "near"), ("far side (agent)", "far")):
            values[metric] = resident_bytes(way.pids[role]) / 2**20
        return values
