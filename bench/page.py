"""The part of ``docs/benchmarks.md`` that a run writes: the machine, the table, where hub and agent stand."""

from __future__ import annotations

import re
from pathlib import Path

from bench.metric import JUDGED, Comparison
from bench.routes import TLS

LEVEL = 0.1  # nearer to the reference than this is level with it: the runs' own difference


def write(page: Path, name: str, results: dict[str, list[Comparison]], machine: dict, rounds: int) -> None:
    """Puts the run in place of the last one of this ``name``. Raises ValueError when the page has no room for it."""
    part = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    text, count = part.subn(lambda part: part[1] + render(results, machine, rounds) + part[2], page.read_text())
    if count != 1:
        raise ValueError(f"{page} has {count} parts for {name}, not one")
    page.write_text(text)


def render(results: dict[str, list[Comparison]], machine: dict, rounds: int) -> str:
    plain = {bench: entries for bench, entries in results.items() if bench != "tls"}
    parts = [
        f"{machine['cpus']} CPUs ({machine['cpu']}), Linux {machine['kernel']}, Python {machine['python']}, "
        f"load {machine['load'][0]:.1f} at the end; medians of {rounds} rounds, {machine['when']}.",
        "",
        *(f"- {version}" for version in machine["programs"].values() if version),
        "",
        _standing(plain),
        *_table(plain),
    ]
    if "tls" in results:
        parts += ["", "Encrypted between the two processes; ratios are to HAProxy with TLS.", ""]
        parts += _table({"tls": results["tls"]})
    return "\n".join(parts) + "\n"


def _table(results: dict[str, list[Comparison]]) -> list[str]:
    """A figure a row; a route a column, its ratio to the reference, which itself stands in the unit."""
    rows: dict[tuple[str, str, str], dict[str, Comparison]] = {}
    for bench, entries in results.items():
        for entry in entries:
            rows.setdefault((bench, entry.metric.name, entry.metric.unit), {})[entry.route] = entry
    routes = list(dict.fromkeys(route for row in rows.values() for route in row))
    lines = [
        f"| bench | figure | unit | {' | '.join(route.removesuffix(TLS) for route in routes)} | one round | floor |",
        f"| --- | --- | --- |{' ---: |' * len(routes)} --- | --- |",
    ]
    for (bench, figure, unit), row in rows.items():
        cells = [_cell(row.get(route)) for route in routes]
        ours = next((row[route] for route in (*JUDGED, JUDGED[0] + TLS) if route in row), None)
        spread = f"{ours.low:.2f} to {ours.high:.2f}" if ours and ours.low is not None else ""
        lines.append(f"| {bench} | {figure} | {unit} | {' | '.join(cells)} | {spread} | {_floor(ours)} |")
    return lines


def _cell(entry: Comparison | None) -> str:
    if entry is None:
        return ""
    if entry.failed:
        return "failed"
    return figure(entry.value) if entry.ratio is None else f"{entry.ratio:.2f}"


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 or not value else f"{value:.3f}"


def _floor(entry: Comparison | None) -> str:
    if entry is None or entry.passed is None:
        return ""
    metric = entry.metric
    sign = "≤" if metric.better == "lower" else "≥"
    bound = f"{metric.ratio_floor:g}" if metric.limit is None else f"{metric.limit:g} {metric.unit}".rstrip()
    return f"{sign} {bound}" + ("" if entry.passed else " **missed**")


def _standing(results: dict[str, list[Comparison]]) -> str:
    """Where ncfast is better than the reference, level with it, worse."""
    sides: dict[str, list[str]] = {"Better": [], "Level": [], "Worse": []}
    for bench, entries in results.items():
        for entry in entries:
            if entry.route not in JUDGED or entry.ratio is None:
                continue
            good = entry.ratio if entry.metric.better == "higher" else 1 / entry.ratio if entry.ratio else 1.0
            side = "Better" if good > 1 + LEVEL else "Worse" if good < 1 / (1 + LEVEL) else "Level"
            sides[side].append(f"{bench} {entry.metric.name} ({entry.ratio:.2f})")
    return "".join(f"{side}: {'; '.join(figures) or 'nothing'}.\n\n" for side, figures in sides.items())
