"""Every work by its name, in the order of the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from bench import (
    agents,
    churn,
    crossing,
    failover,
    idle,
    lookups,
    mixed,
    openloop,
    pingpong,
    redis,
    start,
    stream,
    tls,
)
from bench.metric import Comparison, Sample, compare
from bench.routes import REFERENCE
from bench.scale import Scale

CLUSTER = {"failover": failover, "crossing": crossing, "lookups": lookups}
WORKS: dict[str, ModuleType] = {
    "churn": churn,
    "pingpong": pingpong,
    "openloop": openloop,
    "redis": redis,
    "stream": stream,
    "mixed": mixed,
    "tls": tls,
    "start": start,
    "idle": idle,
    "agents": agents,
    **CLUSTER,
}


def samples(work: str, names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    """Of the routes of ``names`` that the work has; those of a cluster are its own."""
    yield from WORKS[work].run(names, scale, folder)


def compared(work: str, measured: Sequence[Sample]) -> list[Comparison]:
    module = WORKS[work]
    return list(compare(module.METRICS, measured, getattr(module, "REFERENCE", REFERENCE)))
