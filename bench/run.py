"""A run's file: written anew after each work, so that what is measured stays; a later run may go on with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from bench.metric import Comparison, Sample
from bench.report import RESULTS, machine
from bench.scale import Scale
from bench.works import WORKS, compared


@dataclass
class Run:
    """Samples by work, every work with all its rounds."""

    path: Path
    routes: list[str]
    scale: Scale
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=machine)

    @property
    def results(self) -> dict[str, list[Comparison]]:
        return {work: compared(work, self.samples[work]) for work in WORKS if work in self.samples}

    def keep(self, work: str, measured: Sequence[Sample]) -> None:
        """Adds a work, or puts it in the place of an earlier one, and writes the file."""
        self.samples[work] = list(measured)
        self.machine = machine()
        self.path.parent.mkdir(exist_ok=True)
        scratch = self.path.with_suffix(".part")
        scratch.write_bytes(orjson.dumps(self._plain(), option=orjson.OPT_INDENT_2))
        scratch.replace(self.path)

    def _plain(self) -> dict[str, Any]:
        """What is infinite becomes null."""
        return {
            "machine": self.machine,
            "routes": self.routes,
            "scale": asdict(self.scale),
            "results": {work: [_entry(entry) for entry in entries] for work, entries in self.results.items()},
            "samples": self.samples,
        }


def begun(routes: Sequence[str], scale: Scale, folder: Path = RESULTS, kind: str = "") -> Run:
    """With a file in ``folder`` whose name begins with ``kind``."""
    return Run(folder / f"{kind}{datetime.now(UTC):%Y%m%dT%H%M%S}.json", list(routes), scale)


def resumed(path: Path, routes: Sequence[str], scale: Scale) -> Run:
    """As the file at ``path`` has it. Raises ValueError when it was of other routes or another scale."""
    kept = orjson.loads(path.read_bytes())
    for what, asked in ("routes", list(routes)), ("scale", asdict(scale)):
        if kept[what] != asked:
            raise ValueError(f"{path.name} is of other {what}: {kept[what]}, not {asked}")
    return Run(path, kept["routes"], scale, {work: _samples(work, kept["samples"][work]) for work in kept["samples"]})


def _samples(work: str, plain: Sequence[Any]) -> list[Sample]:
    failed = {metric.name: metric.failed for metric in WORKS[work].METRICS}
    return [
        (turn, route, {name: failed[name] if value is None else value for name, value in values.items()})
        for turn, route, values in plain
    ]


def _entry(entry: Comparison) -> dict[str, Any]:
    return {
        "figure": entry.metric.name,
        "unit": entry.metric.unit,
        "route": entry.route,
        "median": entry.value,
        "worst": entry.worst,
        "ratio": entry.ratio,
        "ratio_low": entry.low,
        "ratio_high": entry.high,
        "passed": entry.passed,
    }
