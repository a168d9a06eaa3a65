"""What README and docs/compare.md show of the benchmarks: taken from the table in docs/benchmarks.md, so that no figure
stands anywhere that the last run has not given, losses included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bench.page import LEVEL

SOURCE = Path(__file__).parent / "benchmarks.md"
REFERENCE, OURS = "haproxy", "ncfast"
APART = ("bench", "figure", "unit", "direct", "before", "one round", "floor")  # columns that are no way of carrying TCP
NAMES = {"haproxy": "HAProxy, two chained", "ncfast": "**ncfast**", "ssh": "ssh -R"}
FRONT = {  # figures of the README, in its words
    ("churn", "1 at a time"): "connections opened and closed, one at a time",
    ("churn", "50 at a time"): "the same, 50 at a time",
    ("pingpong", "rtt p50"): "round trip of 128 bytes, median",
    ("pingpong", "rtt p99"): "the same, 99 of 100",
    ("redis", "-c 50"): "`redis-benchmark -c 50`, requests",
    ("stream", "upload"): "one stream to the service",
    ("stream", "download"): "one stream from it",
    ("mixed", "beside download, p99"): "round trip beside a download, 99 of 100",
    ("openloop", "20,500/s, p99"): "20,500 messages a second, 99 of 100",
    ("start", "near side (hub)"): "memory of a hub that has started",
}
PART = re.compile(r"<!-- generated: bench -->\n(.*?)<!-- end -->", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """A figure: HAProxy's as it is, in `unit`; of every other way the ratio to it, as the page writes it."""

    bench: str
    figure: str
    unit: str
    cells: dict[str, str]

    @property
    def faster_is_more(self) -> bool:
        return self.unit.endswith("/s")

    @property
    def verdict(self) -> str:
        """Of ncfast, beside HAProxy; within `LEVEL` they are level, as the page has it."""
        ratio = float(self.cells[OURS].replace(",", ""))
        good = ratio if self.faster_is_more else 1 / ratio if ratio else float("inf")
        return "better" if good > 1 + LEVEL else "worse" if good < 1 / (1 + LEVEL) else "level"


def rows(page: str) -> list[Row]:
    """The tables of the page's last run, plain and encrypted. Raises ValueError for a page without one."""
    found = PART.search(page)
    made, head = [], []
    for line in found[1].splitlines() if found else ():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| bench |"):
            head = cells
        elif line.startswith("| ") and not line.startswith("| ---"):
            named = dict(zip(head, cells, strict=True))
            ways = {name: cell for name, cell in named.items() if name not in APART and cell}
            if REFERENCE in ways and OURS in ways:
                made.append(Row(named["bench"], named["figure"], named["unit"], ways))
    if not made:
        raise ValueError("docs/benchmarks.md has no figures: make benchmarks")
    return made


def _page(chosen: list[tuple[str, Row]], verdict: bool) -> str:
    ways = [REFERENCE, OURS, *sorted({way for _, row in chosen for way in row.cells} - {REFERENCE, OURS})]
    head = ["", *(NAMES.get(way, way) for way in ways), *["ncfast is"] * verdict]
    lines = [head, ["---", *["---:"] * len(ways), *["---"] * verdict]]
    for name, row in chosen:
        cells = [row.cells.get(way, "") for way in ways]
        cells[0] += f" {row.unit}"
        cells[1] = f"**{cells[1]}**"
        lines.append([name, *cells, *[row.verdict] * verdict])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run(page: str) -> str:
    """The line that says when, on what and how often was measured."""
    found = PART.search(page)
    return found[1].strip().splitlines()[0] if found else ""


def of_all(page: str) -> str:
    """Every figure, for docs/compare.md."""
    table = _page([(f"{row.bench}: {row.figure}", row) for row in rows(page)], verdict=True)
    return f"{run(page)}\n\n{table}"


def of_front(page: str) -> str:
    """The few of the README. Raises KeyError when the run has left one of them out."""
    known = {(row.bench, row.figure): row for row in rows(page)}
    arrows = {True: "more is better", False: "less is better"}
    return _page(
        [(f"{words} ({arrows[known[key].faster_is_more]})", known[key]) for key, words in FRONT.items()], verdict=False
    )
