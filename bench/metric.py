"""What a benchmark reports, and the floor it must reach."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

JUDGED = ("ncfast", "mesh")
"""Routes that must reach the floors. HAProxy stands beside them without TLS, so routes with it are not judged."""

OURS = (*JUDGED, "ncfast-tls", "local")
"""Routes of this tree. What one of them does not carry is a fault, and ends the benchmark; any other, the earlier
state among them, may fail a round."""

Values = dict[str, float]
"""By the name of a metric."""

Sample = tuple[int, str, Values]
"""Round number, route name, and the value of each metric."""


@dataclass(frozen=True)
class Metric:
    """One figure. ``ratio_floor`` bounds its ratio to the reference, ``limit`` the figure itself; both in the
    direction that ``better`` names (at most for "lower", at least for "higher")."""

    name: str
    unit: str
    better: Literal["lower", "higher"]
    ratio_floor: float | None = None
    limit: float | None = None

    @property
    def failed(self) -> float:
        """The figure of a route that does not carry the work: infinitely bad."""
        return math.inf if self.better == "lower" else 0.0


@dataclass(frozen=True)
class Comparison:
    """A route beside the reference route, for one metric."""

    metric: Metric
    route: str
    value: float  # median over rounds
    ratio: float | None  # ratio of the medians; None for the reference itself, without one, or to one that failed
    low: float | None  # smallest and largest ratio of any single round: the noise
    high: float | None
    worst: float  # value of any single round

    @property
    def failed(self) -> bool:
        """In so many rounds that the median says so."""
        return self.value == self.metric.failed

    @property
    def passed(self) -> bool | None:
        """None where no floor applies."""
        if self.route not in JUDGED:
            return None
        checks = [(self.ratio, self.metric.ratio_floor), (self.value, self.metric.limit)]
        verdicts = [
            have <= want if self.metric.better == "lower" else have >= want
            for have, want in checks
            if have is not None and want is not None
        ]
        return all(verdicts) if verdicts else None


def compare(metrics: Iterable[Metric], samples: Iterable[Sample], reference: str) -> Iterator[Comparison]:
    """Medians over rounds of every metric and route, each beside the same metric of ``reference``."""
    samples = list(samples)
    routes = list(dict.fromkeys(route for _, route, _ in samples))
    for metric in metrics:
        series = {
            route: {
                turn: values[metric.name] for turn, name, values in samples if name == route and metric.name in values
            }
            for route in routes
        }
        base = {turn: value for turn, value in series.get(reference, {}).items() if value and math.isfinite(value)}
        for route, values in series.items():
            if not values:
                continue
            value = statistics.median(values.values())
            worst = (max if metric.better == "lower" else min)(values.values())
            each = [value / base[turn] for turn, value in values.items() if turn in base]
            if route == reference or not each:
                yield Comparison(metric, route, value, None, None, None, worst)
                continue
            yield Comparison(
                metric, route, value, value / statistics.median(base.values()), min(each), max(each), worst
            )
