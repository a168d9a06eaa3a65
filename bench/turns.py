"""Rounds in which routes take turns, and what stands in the table for a route that does not carry its part."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from bench.metric import OURS, Metric, Sample, Values
from bench.rig import Route

T = TypeVar("T")


def in_turn(
    rounds: int,
    names: Sequence[str],
    ways: Sequence[Route],
    metrics: Sequence[Metric],
    measure: Callable[[Route], Values],
) -> Iterator[Sample]:
    """What ``measure`` finds of each of ``names`` in each round. One that has no way, since it did not start, fails."""
    standing = {way.name: way for way in ways}
    for turn in range(rounds):
        for name in names:
            work = partial(measure, standing[name]) if name in standing else dict
            yield turn, name, carried(name, metrics, work)


def carried(name: str, metrics: Sequence[Metric], measure: Callable[[], Values]) -> Values:
    """What ``measure`` returns; of a route that does not carry it, every figure as failed."""
    return tried(name, measure) or {metric.name: metric.failed for metric in metrics}


def tried(name: str, work: Callable[[], T]) -> T | None:
    """What ``work`` returns; None where it raises, whatever that be, and the route is not ours."""
    try:
        return work()
    except Exception as exc:
        if name in OURS:
            raise
        print(f"{name} fails: {exc!r}", file=sys.stderr, flush=True)
        return None
