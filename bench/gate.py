"""``python -m bench.gate``: a short run beside HAProxy, held against the ratios of ``docs/benchmarks.md``.

Exit code 1 when a ratio is worse than the page has it, by more than noise explains, twice: a figure is the median of
interleaved rounds, and a benchmark with one that is too bad is run again.

Held is what repeats on a machine with other work: CPU time, and the median of times with everything on one CPU. A
slower byte path shows in one of them, whether it works longer or waits.
"""

from __future__ import annotations

import argparse
import math
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import churn, openloop, pingpong, redis, report, stream
from bench.metric import Comparison, Sample
from bench.routes import REFERENCE
from bench.run import begun
from bench.scale import SMOKE
from bench.works import compared
from docs import measured

OURS = "ncfast"
ROUTES = (REFERENCE, OURS)
SCALE = replace(SMOKE, rounds=5, load_sec=0.1, redis_requests=2000)
BENCHES = {"churn": churn, "pingpong": pingpong, "openloop": openloop, "redis": redis, "stream": stream}
ROOM = {
    ("churn", "1 at a time, cpu each"): 2.5,
    ("churn", "50 at a time, cpu each"): 1.75,
    ("pingpong", "rtt p50, 1cpu"): 1.5,
    ("openloop", "2,000/s, 1cpu, cpu per message"): 2.0,
    ("openloop", "20,500/s, cpu per message"): 2.5,
    ("redis", "-c 50, cpu per request"): 1.75,
    ("redis", "-c 50 -P 16, cpu per request"): 2.0,
    ("stream", "upload, cpu per GB"): 3.0,
    ("stream", "download, cpu per GB"): 3.0,
}
"""How many times worse than on the page a ratio may be: the worst of five runs of the lowest priority on two CPUs with
a load of 3 to 12, and a quarter or more on top."""

Page = dict[tuple[str, str], float]
Measured = tuple[list[Sample], list[Comparison]]


@dataclass(frozen=True)
class Held:
    """A figure's ratio to HAProxy: on the page, and in this run."""

    bench: str
    figure: str
    page: float
    here: float
    more_is_better: bool

    @property
    def worse(self) -> float:
        """How many times worse than on the page; below 1 it is better."""
        better, other = (self.here, self.page) if self.more_is_better else (self.page, self.here)
        return other / better if better else math.inf

    @property
    def room(self) -> float:
        return ROOM[self.bench, self.figure]

    @property
    def kept(self) -> bool:
        return self.worse <= self.room

    def __str__(self) -> str:
        words = f"{self.bench} {self.figure}: {self.here:.2f} of HAProxy's, {self.page:.2f} on the page"
        return words if self.kept else f"{words}: {self.worse:.2f} times worse, {self.room:g} is allowed"


def measure(bench: str) -> Measured:
    """A load that a route does not carry makes every figure infinitely bad."""
    metrics = BENCHES[bench].METRICS
    try:
        with tempfile.TemporaryDirectory(prefix="ncfast-gate-") as folder:
            samples = list(BENCHES[bench].run(ROUTES, SCALE, Path(folder)))
    except RuntimeError as fault:
        print(fault, flush=True)
        worst = {metric: math.inf if metric.better == "lower" else 0.0 for metric in metrics}
        return [], [Comparison(metric, OURS, bad, bad, bad, bad, bad) for metric, bad in worst.items()]
    return samples, compared(bench, samples)


def promised(page: str) -> Page:
    """The ratios on the page that are held. Raises ValueError when it lacks one."""
    rows = {(row.bench, row.figure): row for row in measured.rows(page)}
    if missing := [" ".join(name) for name in ROOM if name not in rows]:
        raise ValueError(f"docs/benchmarks.md has no {', no '.join(missing)}: make benchmarks")
    return {name: float(rows[name].cells[OURS].replace(",", "")) for name in ROOM}


def held(bench: str, comparisons: Sequence[Comparison], page: Page) -> list[Held]:
    return [
        Held(bench, entry.metric.name, page[name], entry.ratio, entry.metric.better == "higher")
        for entry in comparisons
        if entry.route == OURS and entry.ratio is not None and (name := (bench, entry.metric.name)) in page
    ]


def judge(bench: str, page: Page, measure: Callable[[str], Measured] = measure) -> tuple[list[Held], Measured]:
    """What is too bad in two runs, if there has to be a second; and the last of them."""
    run = measure(bench)
    if not (bad := _over(bench, run, page)):
        return [], run
    print(f"{bench}: once more", flush=True)
    run = measure(bench)
    before = {entry.figure for entry in bad}
    return [entry for entry in _over(bench, run, page) if entry.figure in before], run


def _over(bench: str, run: Measured, page: Page) -> list[Held]:
    entries = held(bench, run[1], page)
    print(*entries, sep="\n", flush=True)
    return [entry for entry in entries if not entry.kept]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description=__doc__)
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder for the JSON")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that every child is reaped
    if shutil.which("haproxy") is None or shutil.which("redis-benchmark") is None:
        raise SystemExit("not on the PATH: haproxy, or redis-benchmark")
    page = promised(measured.SOURCE.read_text())
    worse: list[Held] = []
    run = begun(ROUTES, SCALE, options.output, "gate-")
    for bench in BENCHES:
        bad, (samples, _) = judge(bench, page)
        run.keep(bench, samples)
        worse += bad
    print(f"samples: {run.path}")
    print(
        "\n".join(["slower than docs/benchmarks.md has it:", *map(str, worse)]) if worse else "as fast as on the page"
    )
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
