"""Prometheus' text format, by Prometheus' own library.

The first scrape loads it: a hub that nobody has scraped yet starts without.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ncfast.observe.families import Metric

_process = ProcessCollector(registry=None)  # process_resident_memory_bytes, process_open_fds, ...


class _Families(Collector):
    """Some families, as the library's exposition wants them."""

    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        return self._families


def histogram(metric: Metric, buckets: list[tuple[str, int]], total: float) -> Any:
    """The family of a histogram; `total` is the sum of what was observed."""
    return HistogramMetricFamily(metric.name, metric.help, buckets, total)


def empty(metric: Metric) -> Any:
    """The family of a counter or gauge, to which samples are added."""
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return make(metric.name, metric.help, labels=metric.labels)


def text(families: list[Any]) -> bytes:
    """The families as text."""
    return generate_latest(_Families(families))


def process() -> bytes:
    """What the kernel says of this process; of 10,000 descriptors it takes some 20 ms to list them."""
    return generate_latest(_process)
