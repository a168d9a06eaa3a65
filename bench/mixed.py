"""Round trips of a small flow while another moves as many bytes as it can, towards the service or from it.

Where both share a connection the small flow waits behind the bytes of the other.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import service
from bench.load import HANG_SEC, command, load
from bench.metric import Metric, Sample, Values
from bench.rig import Route
from bench.routes import routes
from bench.scale import Scale
from bench.turns import in_turn

LONGER_SEC = 0.2  # the stream ends after the small flow

METRICS = (
    Metric("beside upload, p50", "us", "lower"),
    Metric("beside upload, p99", "us", "lower", ratio_floor=1.0),
    Metric("beside download, p50", "us", "lower"),
    Metric("beside download, p99", "us", "lower", ratio_floor=1.0),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo, routes(names, echo.address, folder) as ways:
        yield from in_turn(scale.rounds, names, ways, METRICS, partial(measure, scale))


def measure(scale: Scale, way: Route) -> Values:
    values: Values = {}
    for work in "upload", "download":
        stream = subprocess.Popen(command(work, way, scale.load_sec + LONGER_SEC), stdout=subprocess.DEVNULL)
        try:
            small = load("pingpong", way, scale.load_sec)
            if stream.wait(HANG_SEC):
                raise RuntimeError(f"{work} over {way.name} exited with {stream.returncode}")
        finally:
            stream.kill()
            stream.wait()
        values |= {f"beside {work}, p50": small.p50, f"beside {work}, p99": small.p99}
    return values
