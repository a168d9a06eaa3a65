"""What clients felt, drawn by matplotlib (`pip install -e '.[bench]'`) as PNG and as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from bench.ldap.load import Felt, Histogram  # noqa: E402
from bench.ldap.run import STYLES, Hit, Steady  # noqa: E402

TICKS = {"0": 1, "50 %": 2, "90 %": 10, "99 %": 100, "99.9 %": 1e3, "99.99 %": 1e4}  # a share as 1 / (1 - share)
POINTS = 400  # of a line
COLOURS = {"longest": "#ff7f0e", "median": "#1f77b4", "failed": "#d62728"}
matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "ncfast", "font.size": 9, "axes.grid": True}
matplotlib.rcParams |= {"grid.color": "#e5e5e5", "axes.axisbelow": True, "legend.frameon": False}


def percentiles(folder: Path, runs: Sequence[Steady]) -> str:
    """By style, a line for each way: within which time so large a share was answered. The name of the plot."""
    styles = list(dict.fromkeys(run.style for run in runs))
    figure, axes = pyplot.subplots(1, len(styles), figsize=(5 * len(styles), 4), sharey=True, squeeze=False)
    for axis, style in zip(axes[0], styles, strict=True):
        for run in runs:
            if run.style == style:
                axis.plot(*_curve(run.felt.every), label=run.way, linewidth=1.5)
        axis.set(title=STYLES[style], xscale="log", yscale="log", xlabel="share of operations")
        axis.set_xticks(list(TICKS.values()), list(TICKS))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
    axes[0][0].set_ylabel("ms, from when it was due")
    axes[0][0].legend()
    return _save(folder, "latency", figure)


def _curve(every: Histogram) -> tuple[list[float], list[float]]:
    """1 / (1 - share), up to the last operation but one, and milliseconds."""
    most = max(every.count, 2) ** (1 / POINTS)
    across = [most**point for point in range(POINTS)]
    return across, [every.ms(1 - 1 / x) for x in across]


def timeline(folder: Path, hit: Hit) -> str:
    """By style, what was felt in each slice of the run, and what failed in it; what was done, and when."""
    styles = list(hit.felt)
    figure, axes = pyplot.subplots(
        2, len(styles), figsize=(6 * len(styles), 4.5), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1)
    )
    for column, style in enumerate(styles):
        _times(axes[0][column], hit.felt[style])
        _errors(axes[1][column], hit.felt[style])
        axes[0][column].set_title(f"{hit.fault}: {STYLES[style]}", pad=30)
        for at, words in (mark for mark in hit.marks if mark[0] < hit.felt[style].load.sec):
            for axis in (axes[0][column], axes[1][column]):
                axis.axvline(at, color="black", linestyle=":", linewidth=1)
            top = axes[0][column].get_xaxis_transform()
            axes[0][column].text(at, 1.02, words, transform=top, rotation=20, fontsize=8)
    axes[0][0].set_ylabel("ms, from when it was due")
    axes[1][0].set_ylabel("failed/s")
    axes[0][0].legend(loc="upper right")
    return _save(folder, hit.fault, figure)


def _seconds(felt: Felt) -> list[float]:
    return [(index + 0.5) * felt.load.slice_sec for index in range(len(felt.slices))]


def _times(axis: Any, felt: Felt) -> None:
    for name in ("longest", "median"):
        values = [getattr(one, name) if one.count else float("nan") for one in felt.slices]
        axis.plot(_seconds(felt), values, label=name, color=COLOURS[name], linewidth=1.2)
    axis.set(yscale="log", xlim=(0, felt.load.sec))
    axis.yaxis.set_major_formatter("{x:g}")


def _errors(axis: Any, felt: Felt) -> None:
    width = felt.load.slice_sec
    rates = [one.failed / width for one in felt.slices]
    axis.bar(_seconds(felt), rates, width=width, color=COLOURS["failed"])
    axis.set(xlabel="s", ylim=(0, max(1.0, *rates, *axis.get_ylim())))


def _save(folder: Path, name: str, figure: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=80, metadata={"Software": None})
    pyplot.close(figure)
    return name
