"""What a benchmark reports, and the floor it must reach."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Sample = tuple[int, str, dict[str, float]]
"""Round number, route name, and the value of each metric."""

JUDGED = ("ncfast", "mesh")
"""Routes that must reach the floors. HAProxy stands beside them without TLS, so routes with it are not judged."""


@dataclass(frozen=True)
class Metric:
    """One figure. ``ratio_floor`` bounds its ratio to the reference, ``limit`` the figure itself; both in the
    direction that ``better`` names (at most for "lower", at least for "higher")."""

    name: str
    unit: str
    better: Literal["lower", "higher"]
    ratio_floor: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A route beside the reference route, for one metric."""

    metric: Metric
    route: str
    value: float  # median over rounds
    ratio: float | None  # ratio of the medians; None for the reference itself, without one, or to nothing
    low: float | None  # smallest and largest ratio of any single round: the noise
    high: float | None
    worst: float  # value of any single round

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
        base = series.get(reference, {})
        for route, values in series.items():
            if not values:
                continue
            value = statistics.median(values.values())
            worst = (max if metric.better == "lower" else min)(values.values())
            if route == reference or not base or not all(base.values()):
                yield Comparison(metric, route, value, None, None, None, worst)
                continue
            each = [values[turn] / base[turn] for turn in values]
            yield Comparison(
                metric, route, value, value / statistics.median(base.values()), min(each), max(each), worst
            )
