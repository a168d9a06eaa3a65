"""LDAP clients at a real slapd, through every mode of a cluster and through its faults: what they feel, held against
budgets. Exit code 1 when one is broken."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson

from bench.ldap.budget import Budget
from bench.ldap.faults import FAULTS
from bench.ldap.load import OPERATIONS, Load
from bench.ldap.run import STYLES, Hit, Steady, environment, session
from bench.ldap.ways import WAYS
from bench.report import RESULTS

MIX = {"bind": 10, "search": 80, "modify": 8, "unbind": 2}
PROGRAMS = ("slapd", "slapadd", "redis-server")
NONE = "none"


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(words)
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise SystemExit(f"not on the PATH: {', '.join(absent)}")
    if options.report and importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("the report's plots need matplotlib: pip install -e '.[bench]'")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that every child is reaped
    load = Load(options.rate, options.seconds, options.mix, options.connections, limit_sec=options.limit)
    budget = Budget(options.p99, options.errors)
    about = environment()
    runs: list[Steady | Hit] = []
    with tempfile.TemporaryDirectory(prefix="ncfast-ldap-") as folder:
        runs += session(load, options.style, options.ways, options.faults, Path(folder))
    broken = list(budget.broken(runs))
    if options.report:
        from bench.ldap import report

        command = shlex.join(["python", "-m", "bench.ldap", *words])
        report.write(options.report, report.Session(command, load, budget.words, broken, about, runs))
    print(f"histograms: {_save(options.output, runs, about)}")
    print("\n".join(broken) if broken else f"within the budget: {budget.words}")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.ldap", description=__doc__)
    add = parser.add_argument
    add("--rate", type=float, default=100, metavar="N", help="operations a second, by a timetable (100)")
    add("--seconds", type=float, default=20, metavar="SEC", help="of each run, after a second of warm-up (20)")
    add("--mix", type=_mix, default=MIX, help=f"weights of operations ({','.join(f'{k}={v}' for k, v in MIX.items())})")
    add("--connections", type=int, default=50, metavar="N", help="how many are kept (50)")
    add("--limit", type=float, default=15, metavar="SEC", help="after which an operation has failed (15)")
    for name, known in ("style", STYLES), ("ways", WAYS), ("faults", FAULTS):
        more = f", or {NONE}" if name != "style" else ""
        help_ = f"comma-separated, of {', '.join(known)}{more} (all)"
        add(f"--{name}", type=_names(known, bool(more)), default=list(known), metavar="NAMES", help=help_)
    add("--p99", type=float, metavar="MS", help="budget of each way through the product (none)")
    add("--errors", type=float, metavar="PERCENT", help="the same, of errors; of the faults, too (none)")
    add("--report", type=Path, metavar="FILE", help="a page of Markdown; its plots go into a folder beside it")
    add("--output", type=Path, default=RESULTS, help="folder for the histograms, as JSON")
    return parser


def _names(known: Iterable[str], may_be_none: bool) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [] if may_be_none and text == NONE else text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown name {name!r}: one or more of {','.join(known)}")
        return names

    return parse


def _mix(text: str) -> dict[str, int]:
    try:
        mix = {name: int(weight) for name, _, weight in (word.partition("=") for word in text.split(","))}
    except ValueError:
        mix = {}
    if not mix or mix.keys() - set(OPERATIONS) or min(mix.values()) < 0 or not sum(mix.values()):
        raise argparse.ArgumentTypeError(f"not like bind=10,search=90, of {', '.join(OPERATIONS)}")
    return mix


def _save(folder: Path, runs: list[Steady | Hit], about: dict) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"ldap-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    path.write_bytes(orjson.dumps({"machine": about, "runs": runs}))
    return path


if __name__ == "__main__":
    sys.exit(main())
