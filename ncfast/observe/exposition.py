"""Prometheus' text format, by Prometheus' own library.

The first scrape loads it: a hub that nobody has scraped yet starts without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ncfast.observe.histogram import Histogram
from ncfast.observe.slices import Slices, each

_KINDS = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
_process = ProcessCollector(registry=None)  # process_resident_memory_bytes, process_open_fds, ...


class Family(Protocol):
    """What is told of a metric family: counters, gauges and histograms of seconds."""

    @property
    def name(self) -> str: ...
    @property
    def help(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...


class _Families(Collector):
    """Some families, as the library's exposition wants them."""

    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        return self._families


def empty(metric: Family) -> Any:
    """A family, to which samples are added."""
    return _KINDS[metric.kind](metric.name, metric.help, labels=metric.labels)


def add(family: Any, labels: tuple[str, ...], value: float | Histogram) -> None:
    """One value of the family, or of a histogram's its buckets."""
    if isinstance(value, Histogram):
        family.add_metric(labels, value.cumulative(), value.sum)
    else:
        family.add_metric(labels, value)


def write(family: Any, most: int, out: Callable[[bytes], object]) -> Slices[None]:
    """The family as text, `most` samples in a slice. Its head stands before the first, or alone."""
    samples, family.samples = family.samples, []
    out(generate_latest(_Families([family])))

    def tail(some: list[Any]) -> None:
        family.samples = some
        _, _, text = generate_latest(_Families([family])).split(b"\n", 2)
        out(text)

    yield from each(samples, most, tail)
    yield


def process() -> bytes:
    """What the kernel says of this process; of 10,000 descriptors it takes some 20 ms to list them."""
    return generate_latest(_process)
