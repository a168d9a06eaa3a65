"""``python -m bench``: run the benchmarks, print the table, keep the JSON."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import (
    agents,
    churn,
    crossing,
    failover,
    idle,
    lookups,
    mixed,
    openloop,
    page,
    pingpong,
    redis,
    report,
    start,
    stream,
    tls,
)
from bench.metric import Sample, compare
from bench.routes import REFERENCE, ROUTES, add_before, at_hand, missing
from bench.scale import FULL, QUICK, SMOKE

BENCHES = {
    "churn": churn,
    "pingpong": pingpong,
    "openloop": openloop,
    "redis": redis,
    "stream": stream,
    "mixed": mixed,
    "tls": tls,
    "start": start,
    "idle": idle,
    "agents": agents,
}
CLUSTER = {"failover": failover, "crossing": crossing, "lookups": lookups}
LOCAL = "local"  # what the cluster's benchmarks compare with
SCALES = {"full": FULL, "quick": QUICK, "smoke": SMOKE}


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if absent := missing(options.routes):
        raise SystemExit(f"not on the PATH: {', '.join(absent)}")
    if options.before:
        options.routes = add_before(options.before, options.routes)
    scale = SCALES[options.scale]
    if options.rounds:
        scale = replace(scale, rounds=options.rounds, idle_rounds=options.rounds, kills=options.rounds)
    known, reference, names = (
        (CLUSTER, LOCAL, [LOCAL, "mesh"]) if options.cluster else (BENCHES, REFERENCE, options.routes)
    )
    only = options.only or list(known)
    if unknown := set(only) - known.keys():
        raise SystemExit(f"{', '.join(sorted(unknown))}: {'not ' if options.cluster else 'only '}with --cluster")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that every child is reaped

    results: dict[str, list[Any]] = {}
    samples: dict[str, list[Sample]] = {}
    for name in only:
        samples[name] = []
        with tempfile.TemporaryDirectory(prefix="ncfast-bench-") as folder:
            for sample in known[name].run(names, scale, Path(folder)):
                samples[name].append(sample)
                _progress(name, sample)
        results[name] = list(compare(known[name].METRICS, samples[name], getattr(known[name], "REFERENCE", reference)))
    print(report.table(results, reference))
    about = report.machine()
    print(f"\nsamples: {report.save(options.output, results, samples, names, about)}")
    if options.page:
        page.write(options.page, "cluster" if options.cluster else "bench", results, about, scale.rounds)
    return 0


def _progress(bench: str, sample: Sample) -> None:
    turn, route, values = sample
    figures = ", ".join(f"{name} {value:,.1f}" for name, value in values.items())
    print(f"{bench} round {turn + 1} {route}: {figures}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--cluster", action="store_true", help="three hubs instead: failover, and flows across the mesh"
    )
    parser.add_argument(
        "--only",
        type=_names(BENCHES | CLUSTER),
        metavar="NAMES",
        help=f"comma-separated: {','.join(BENCHES)}, or with --cluster {','.join(CLUSTER)} (default: all)",
    )
    parser.add_argument(
        "--routes",
        type=_names(ROUTES),
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
        help="two minutes instead of ten: a direction, not a figure",
    )
    parser.add_argument(
        "--smoke", dest="scale", action="store_const", const="smoke", help="the least work that runs every line"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into this page as well")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder for the JSON")
    return parser


def _names(known: dict):
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown name {name!r}: one or more of {','.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
