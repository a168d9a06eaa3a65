"""The last quarter of an hour as curves: a figure now, what it was at most, and the way between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan
from typing import NamedTuple

from ncfast.observe.history import PERIOD, SAMPLES, History
from ncfast.observe.page.markup import text
from ncfast.observe.units import size

WIDTH, HEIGHT = 240, 48  # of the drawing; it is stretched to its place
AIR = 3  # above the highest point and below the lowest, for the line's own width
_MINUTES = round(PERIOD * SAMPLES / 60)

Show = Callable[[float], str]


def count(value: float) -> str:
    return f"{value:,.0f}"


def rate(value: float) -> str:
    return f"{value:,.0f}/s" if value >= 10 or value == 0 else f"{value:.1f}/s"


def bytes_rate(value: float) -> str:
    return f"{size(int(value))}/s"


def milliseconds(value: float) -> str:
    """Of seconds, with as many digits as are worth reading."""
    ms = value * 1000
    return f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.1f} ms" if ms >= 10 else f"{ms:.2f} ms"


class Curve(NamedTuple):
    """One drawing, of one or two curves of the same unit."""

    title: str
    curves: tuple[str, ...]
    show: Show
    names: tuple[str, ...] = ("",)


DRAWN = (
    Curve("Flows", ("flows",), count),
    Curve("Bytes", ("from_clients", "to_clients"), bytes_rate, ("from clients", "to clients")),
    Curve("Opens", ("opens",), rate),
    Curve("Time to open, p99", ("open_p99",), milliseconds),
    Curve("Slowest mesh link", ("mesh_rtt",), milliseconds),
    Curve("Memory that waits", ("held",), lambda value: size(int(value))),
)


def curves(history: History, cluster: bool) -> str:
    """All of them; that of the mesh only where there is one."""
    shown = [one for one in DRAWN if cluster or one.curves != ("mesh_rtt",)]
    figures = [_figure(one, [history.curve(name) for name in one.curves]) for one in shown]
    return f"<div class=curves>{''.join(figures)}</div>"


def _figure(one: Curve, series: list[list[float]]) -> str:
    known = [value for values in series for value in values if not isnan(value)]
    most = max(known, default=0.0)
    now = [_last(values) for values in series]
    figures = "".join(f"<p class='now line{k}'>{text(_said(value, one.show))}</p>" for k, value in enumerate(now))
    legend = "".join(f"<span class=line{k}>{text(name)}</span>" for k, name in enumerate(one.names) if name)
    said = "; ".join(
        f"{name + ' ' if name else ''}now {_said(value, one.show)}" for value, name in zip(now, one.names, strict=True)
    )
    label = f"{one.title}, the last {_MINUTES} minutes: {said}; at most {one.show(most) if known else 'nothing'}"
    drawn = "".join(_drawing(values, most, k) for k, values in reversed(list(enumerate(series))))
    return (
        f"<figure class=curve><figcaption>{text(one.title)}{legend}</figcaption><div class=figures>{figures}</div>"
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' preserveAspectRatio=none role=img aria-label='{text(label)}'>"
        f"<path class=base d='M0 {HEIGHT - AIR}H{WIDTH}'/>{drawn}</svg>"
        f"<p class=scale><span>{_MINUTES} min</span>"
        f"<span>{'max ' + text(one.show(most)) if known else 'nothing yet'}</span></p></figure>"
    )


def _said(value: float | None, show: Show) -> str:
    return "–" if value is None else show(value)


def _last(values: Sequence[float]) -> float | None:
    """The newest sample; None if there was nothing to measure in it."""
    return None if isnan(values[-1]) else values[-1]


def _drawing(values: Sequence[float], most: float, number: int) -> str:
    """A line that is broken where nothing was measured, and for the first curve the area below it."""
    step, floor = WIDTH / (SAMPLES - 1), HEIGHT - AIR
    scale = (HEIGHT - 2 * AIR) / most if most else 0.0
    runs: list[list[str]] = [[]]
    for k, value in enumerate(values):
        if isnan(value):
            runs.append([])
        else:
            runs[-1].append(f"{k * step:.1f} {floor - value * scale:.1f}")
    drawn = []
    for points in filter(None, runs):
        first, last = points[0].partition(" ")[0], points[-1].partition(" ")[0]
        way = "L".join(points)
        if number == 0:
            drawn.append(f"<path class=area d='M{first} {floor}L{way}L{last} {floor}Z'/>")
        drawn.append(f"<path class='line line{number}' d='M{way}{'h.1' if len(points) == 1 else ''}'/>")
    return "".join(drawn)
