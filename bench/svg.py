"""Line charts as SVG, both axes logarithmic: what the plots of ``docs/benchmarks.md`` need, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50  # margins; the legend is on the right
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#7f7f7f", "#bcbd22")
STEPS = (1, 2, 5)  # of an axis that is shorter than two decades
ALL_STEPS = range(1, 10)  # of one from a value to less than five times as much


def chart(title: str, across: str, up: str, lines: Mapping[str, Points]) -> str:
    """``lines`` by name, with positive coordinates; the first is drawn thicker."""
    lines = {name: points for name, points in lines.items() if points}
    x = Axis([point[0] for points in lines.values() for point in points], LEFT, WIDTH - RIGHT)
    y = Axis([point[1] for points in lines.values() for point in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 22, title, size=15),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, across, anchor="middle"),
        f'<g transform="rotate(-90 16 {HEIGHT / 2})">{_text(16, HEIGHT / 2, up, anchor="middle")}</g>',
    ]
    for value in x.ticks():
        parts.append(_line(x.at(value), TOP, x.at(value), HEIGHT - BOTTOM))
        parts.append(_text(x.at(value), HEIGHT - BOTTOM + 16, label(value), anchor="middle"))
    for value in y.ticks():
        parts.append(_line(LEFT, y.at(value), WIDTH - RIGHT, y.at(value)))
        parts.append(_text(LEFT - 6, y.at(value) + 4, label(value), anchor="end"))
    for index, (name, points) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{x.at(across):.1f},{y.at(up):.1f}" for across, up in points)
        thick = 3 if index == 0 else 1.5
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{thick}"/>')
        parts += [f'<circle cx="{x.at(a):.1f}" cy="{y.at(u):.1f}" r="3" fill="{colour}"/>' for a, u in points]
        row = TOP + 8 + 18 * index
        parts.append(_line(WIDTH - RIGHT + 12, row, WIDTH - RIGHT + 32, row, colour, thick))
        parts.append(_text(WIDTH - RIGHT + 38, row + 4, name))
    return "\n".join([*parts, "</svg>", ""])


class Axis:
    """From a value to a place between ``low`` and ``high``, by its logarithm."""

    def __init__(self, values: Sequence[float], low: float, high: float) -> None:
        self._least, self._most = min(values), max(values)
        if self._most < 1.2 * self._least:  # a line that is level is drawn so
            self._least, self._most = self._least / 1.5, self._most * 1.5
        self._low, self._high = low, high

    def at(self, value: float) -> float:
        share = math.log(value / self._least) / math.log(self._most / self._least)
        return self._low + share * (self._high - self._low)

    def ticks(self) -> list[float]:
        breadth = self._most / self._least
        steps: Sequence[int] = ALL_STEPS if breadth < 5 else STEPS if breadth < 100 else STEPS[:1]
        decades = range(math.floor(math.log10(self._least)), math.ceil(math.log10(self._most)) + 1)
        return [
            step * 10.0**decade
            for decade in decades
            for step in steps
            if self._least * 0.999 <= step * 10.0**decade <= self._most * 1.001
        ]


def label(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#dddddd", thick: float = 1) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" stroke-width="{thick}"/>'


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'
