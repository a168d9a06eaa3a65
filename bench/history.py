"""``python -m bench.history``: a run beside the last release's, figure by figure, as ratios to HAProxy in each.

``history/`` has one file a release, which ``--keep`` writes from the runs that ``docs/benchmarks.md`` shows. Exit code
1 when a figure is worse than then: when its best round is worse than the release's worst. What the rounds' own ranges
share is noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench.metric import JUDGED
from bench.report import RESULTS
from bench.routes import TLS
from ncfast import __version__

HISTORY = Path(__file__).resolve().parent / "history"
OURS = (*JUDGED, JUDGED[0] + TLS)
KEPT = ("figure", "unit", "route", "median", "ratio", "ratio_low", "ratio_high")

Figures = dict[tuple[str, str], dict[str, Any]]
"""By benchmark and figure, what `KEPT` names, of our own routes."""


@dataclass(frozen=True)
class Change:
    """A figure that both runs have."""

    bench: str
    figure: str
    then: dict[str, Any]
    now: dict[str, Any]

    @property
    def verdict(self) -> str:
        """Worse, better, or neither, which is nothing."""
        below, above = (
            self.now["ratio_high"] < self.then["ratio_low"],
            self.now["ratio_low"] > self.then["ratio_high"],
        )
        if not below and not above:
            return ""
        more_is_better = self.then["unit"].endswith("/s")
        return "better" if above == more_is_better else "worse"

    def __str__(self) -> str:
        was, now = self.then["ratio"], self.now["ratio"]
        return f"{self.bench:<9} {self.figure:<32} {was:>8.2f} {now:>8.2f}  {self.verdict}".rstrip()


def figures(document: dict[str, Any]) -> Figures:
    return {
        (bench, entry["figure"]): {name: entry[name] for name in KEPT}
        for bench, entries in document["results"].items()
        for entry in entries
        if entry["route"] in OURS
    }


def changes(then: Figures, now: Figures) -> Iterator[Change]:
    """Of all that has a ratio in both."""
    for name, entry in then.items():
        if name in now and entry["ratio"] is not None and now[name]["ratio"] is not None:
            yield Change(*name, entry, now[name])


def last(folder: Path) -> Path:
    """The latest release's file. Raises SystemExit when none is kept."""
    kept = list(folder.glob("*.json"))
    if not kept:
        raise SystemExit(f"no release in {folder.name}/: --keep")
    return max(kept, key=lambda path: json.loads(path.read_text())["machine"]["when"])


def keep(runs: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Writes what the runs have measured as this version's."""
    results: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for (bench, _), entry in figures(run).items():
            results.setdefault(bench, []).append(entry)
    folder.mkdir(exist_ok=True)
    path = folder / f"{__version__}.json"
    lines = [
        f'    "{bench}": [\n' + ",\n".join(f"      {orjson.dumps(entry).decode()}" for entry in entries) + "\n    ]"
        for bench, entries in results.items()
    ]
    machine = orjson.dumps(runs[0]["machine"]).decode()
    path.write_text(f'{{\n  "machine": {machine},\n  "results": {{\n' + ",\n".join(lines) + "\n  }\n}\n")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN.json", help="of python -m bench (the newest)")
    parser.add_argument("--keep", action="store_true", help="write them into the history, as this version's")
    options = parser.parse_args(argv)
    runs = options.runs or sorted(RESULTS.glob("[0-9]*.json"))[-1:]
    if not runs:
        raise SystemExit("no run in bench/results/: python -m bench")
    documents = [json.loads(path.read_text()) for path in runs]
    if options.keep:
        print(keep(documents, HISTORY))
        return 0
    release = last(HISTORY)
    now = {name: entry for document in documents for name, entry in figures(document).items()}
    found = list(changes(figures(json.loads(release.read_text())), now))
    print(f"{'':<42} {release.stem:>8} {'now':>8}", *found, sep="\n")
    return 1 if any(change.verdict == "worse" for change in found) else 0


if __name__ == "__main__":
    sys.exit(main())
