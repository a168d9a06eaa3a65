"""``python -m bench``: run the benchmarks, print the table, keep the JSON."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import page, report
from bench.metric import Sample
from bench.routes import REFERENCE, ROUTES, add_before, at_hand, comma_separated, missing
from bench.run import Run, begun, resumed
from bench.scale import FULL, QUICK, SMOKE, Scale
from bench.works import CLUSTER, WORKS, samples

PARTS = {"bench": WORKS.keys() - CLUSTER.keys(), "cluster": CLUSTER.keys()}  # of the page
SCALES = {"full": FULL, "quick": QUICK, "smoke": SMOKE}


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if absent := missing(options.routes):
        raise SystemExit(f"not on the PATH: {', '.join(absent)}")
    if options.before:
        options.routes = add_before(options.before, options.routes)
    scale = SCALES[options.scale]
    if options.rounds:
        scale = replace(scale, rounds=options.rounds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that every child is reaped

    run = _run(options, scale)
    print(f"kept after each work: {run.path}", file=sys.stderr)
    left = options.only or [work for work in WORKS if work not in run.samples]
    unfinished = [work for work in left if not _measured(work, run)]
    print(report.table(run.results, REFERENCE))
    if options.page and not unfinished:
        for part, works in PARTS.items():
            if done := {work: entries for work, entries in run.results.items() if work in works}:
                page.write(options.page, part, done, run.machine, scale.rounds)
    print(f"\nsamples: {run.path}")
    if unfinished:
        print(f"ended early: {', '.join(unfinished)}; the same command with --resume {run.path} tries them again")
    return 1 if unfinished else 0


def _run(options: argparse.Namespace, scale: Scale) -> Run:
    if options.resume is None:
        return begun(options.routes, scale, options.output)
    try:
        return resumed(options.resume, options.routes, scale)
    except (OSError, ValueError) as exc:
        raise SystemExit(str(exc)) from exc


def _measured(work: str, run: Run) -> bool:
    """Whether it came to its end; what ends one work does not end the run."""
    measured: list[Sample] = []
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="ncfast-bench-") as folder:
            for sample in samples(work, run.routes, run.scale, Path(folder)):
                measured.append(sample)
                _progress(work, sample)
    except Exception:
        traceback.print_exc()
        return False
    run.keep(work, measured)
    print(f"{work}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return True


def _progress(work: str, sample: Sample) -> None:
    turn, route, values = sample
    figures = ", ".join(f"{name} {value:,.1f}" for name, value in values.items())
    print(f"{work} round {turn + 1} {route}: {figures}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only",
        type=comma_separated(WORKS),
        metavar="NAMES",
        help=f"comma-separated: {','.join(WORKS)} (default: all)",
    )
    parser.add_argument(
        "--routes",
        type=comma_separated(ROUTES),
        default=at_hand(),
        metavar="NAMES",
        help=f"comma-separated: {','.join(ROUTES)} (default: those without TLS whose programs are on the PATH)",
    )
    parser.add_argument(
        "--before", type=Path, metavar="DIR", help="a built tree of an earlier state, as one more route beside ncfast"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each benchmark instead of the scale's own")
    parser.add_argument(
        "--quick",
        dest="scale",
        action="store_const",
        const="quick",
        default="full",
        help="a few minutes: a direction, not a figure",
    )
    parser.add_argument(
        "--smoke", dest="scale", action="store_const", const="smoke", help="the least work that runs every line"
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="go on with the run of this JSON: what it lacks, or --only, is measured, all else is kept as it is",
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables into this page as well")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder for the JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
