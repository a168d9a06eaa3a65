"""The table that is read, and what it was measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.metric import Comparison, Metric
from bench.peers import PEERS

HEAD = ("benchmark", "figure", "unit", "route", "median", "worst", "ratio", "of one round", "floor", "")
RESULTS = Path(__file__).resolve().parent / "results"
VERSION = re.compile(r"\d+\.\d+[.p]\d")
NUMERIC = {4, 5, 6, 7, 8}


def table(results: dict[str, list[Comparison]], reference: str) -> str:
    """One line for each benchmark, figure and route; ratios are to ``reference`` in the same run."""
    rows = [HEAD]
    for bench, comparisons in results.items():
        shown = None
        for entry in comparisons:
            metric = entry.metric
            label = (bench, metric.name, metric.unit) if metric.name != shown else ("", "", "")
            shown = metric.name
            rows.append(
                (
                    *label,
                    entry.route,
                    _figure(entry.value, entry.metric),
                    _figure(entry.worst, entry.metric),
                    "" if entry.ratio is None or entry.failed else f"{entry.ratio:.2f}",
                    "" if entry.ratio is None else f"{entry.low:.2f} to {entry.high:.2f}",
                    _floor(entry),
                    {None: "", True: "reached", False: "MISSED"}[entry.passed],
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in NUMERIC else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([f"ratios are to {reference}", "", lines[0], "-" * len(lines[0]), *lines[1:]])


def _figure(value: float, metric: Metric) -> str:
    if value == metric.failed:
        return "failed"
    return f"{value:,.1f}" if abs(value) >= 1 or not value else f"{value:.3f}"


def _floor(entry: Comparison) -> str:
    if entry.passed is None:
        return ""
    sign = "<=" if entry.metric.better == "lower" else ">="
    if entry.metric.limit is not None:
        return f"{sign} {entry.metric.limit:g} {entry.metric.unit}"
    return f"{sign} {entry.metric.ratio_floor:g}"


def machine() -> dict[str, Any]:
    """What is needed to judge a run."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "programs": {
            "haproxy": version(["haproxy", "-v"]),
            "redis": version(["redis-server", "--version"]),
            **{name: version(made.version, name) for name, made in PEERS.items() if made.here},
        },
    }


def version(argv: Sequence[str], name: str = "") -> str | None:
    """The first line with a version that the program says; None where it is not installed, a run that needs it has
    failed before."""
    if shutil.which(argv[0]) is None:
        return None
    said = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    found = next(filter(VERSION.search, said.splitlines()), "")
    return " ".join([name, *found.split()]).strip()
