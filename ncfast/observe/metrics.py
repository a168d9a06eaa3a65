"""What GET /metrics answers: the families of `ncfast.observe.families` in Prometheus' text format.

Labels have bounded sets of values (see `LABEL_CAP`). All numbers of one answer are read in one turn of the loop; those
that are sums over agents or flows were added up in the turns before. `python -m ncfast.observe.metrics` prints the page
of the documentation.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

from ncfast.observe.families import METRICS, Metric, Value
from ncfast.observe.slices import Slices, each, spread
from ncfast.observe.stats import Histogram, Stats

__all__ = ["CONTENT_TYPE", "Metrics"]

LABEL_CAP = 200  # values of one label; further ones are added up under "other"
PEER_CAP = 50  # the same for `peer`, which has a series for each state of a link
OTHER = "other"
VALUES = 1024  # labelled values looked at in one slice, about 0.5 ms
SAMPLES = 128  # written in one slice, about 0.5 ms; a family is not cut


class Totals(Protocol):
    """What a scrape needs of a hub's snapshot."""

    def totals(self) -> Slices[dict[str, Any]]: ...


class Hub(Protocol):
    """What a scrape needs of a hub."""

    @property
    def stats(self) -> Stats: ...

    @property
    def snapshot(self) -> Totals: ...


OVERFLOW = Metric(
    "nowconnect_label_overflow",
    f"Values of a label now added up under '{OTHER}', because as many as it may have were there first.",
    lambda s, h: {},
    ("label",),
)


class Labels:
    """Keeps the values of each label bounded: the first ones ever seen keep their own series."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}
        self._overflow: dict[str, set[str]] = {}

    def start(self, hub: dict[str, Any]) -> None:
        """Starts a scrape. Configured names come first: what agents announce cannot crowd them out."""
        self._overflow.clear()
        for entry in hub["listeners"]:
            self.bound("listener", entry["name"])
            self.bound("connector", entry["connector"])

    def bound(self, label: str, value: str) -> str:
        known = self._known.setdefault(label, {})
        shown = known.get(value)
        if shown is None:
            if len(known) >= (PEER_CAP if label == "peer" else LABEL_CAP):
                self._overflow.setdefault(label, set()).add(value)
                return OTHER
            shown = known[value] = value[:64].encode("utf-8", "backslashreplace").decode()
        return shown

    def overflow(self) -> dict[str, int]:
        """How many values of each label are under "other" in this scrape."""
        return {label: len(self._overflow.get(label, ())) for label in self._known}


class Families(Collector):
    """Some families, as the library's exposition wants them."""

    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        return self._families


class Metrics:
    """Answers one hub's scrapes, one after the other."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._labels = Labels()
        self._process = ProcessCollector(registry=None)  # process_resident_memory_bytes, process_open_fds, ...

    async def exposition(self) -> bytes:
        """The whole answer; its content type is `CONTENT_TYPE`."""
        ours = await spread(self.render())
        # In a thread: the kernel lists every descriptor, 10,000 take it some 20 ms, and nothing of ours is read.
        return ours + await asyncio.to_thread(generate_latest, self._process)

    def render(self) -> Slices[bytes]:
        """The hub's own families."""
        totals = yield from self._hub.snapshot.totals()
        self._labels.start(totals)
        values = [_still(metric.read(self._hub.stats, totals)) for metric in METRICS]  # in the turn of the totals
        yield
        text: list[bytes] = []
        families: list[Any] = []
        samples = 0
        for metric, value in zip(METRICS, values, strict=True):
            families.append((yield from self._family(metric, value)))
            samples += len(families[-1].samples)
            if samples >= SAMPLES:
                text.append(generate_latest(Families(families)))
                families, samples = [], 0
                yield
        families.append((yield from self._family(OVERFLOW, self._labels.overflow())))
        text.append(generate_latest(Families(families)))
        return b"".join(text)

    def _family(self, metric: Metric, value: Any) -> Slices[Any]:
        if metric.kind == "histogram":
            return HistogramMetricFamily(metric.name, metric.help, *value)
        make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = make(metric.name, metric.help, labels=metric.labels)
        if not isinstance(value, Mapping):
            family.add_metric((), value)
            return family
        sums: dict[tuple[str, ...], float] = defaultdict(float)

        def add(items: list[tuple[Any, float]]) -> None:
            for key, number in items:
                values = key if isinstance(key, tuple) else (key,)
                sums[tuple(map(self._labels.bound, metric.labels, values))] += number

        yield from each(list(value.items()), VALUES, add)
        for labels, number in sums.items():
            family.add_metric(labels, number)
        return family


def _still(value: Value) -> Any:
    """What was read, as it is now: counting goes on while the answer is written."""
    if isinstance(value, Histogram):
        return value.cumulative(), value.sum
    return dict(value) if isinstance(value, Mapping) else value


def document() -> str:
    """``docs/metrics.md``."""
    rows = []
    for metric in (*METRICS, OVERFLOW):
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(
        [
            "# Metrics",
            "",
            "`GET /metrics` on the admin edge, in Prometheus' text format. This page is printed by",
            "`python -m ncfast.observe.metrics`; a test keeps the two equal.",
            "",
            f"A label has at most {LABEL_CAP} values of its own (`peer` {PEER_CAP}); later ones are added up under",
            f"`{OTHER}`, and `{OVERFLOW.name}` says how many they are. No label holds a flow, an",
            "agent, a tenant or a client's address; `peer` is a hub's `replica_id`, or its configured URL until it",
            "has said its name. A labelled counter has no series before its first event, and without a cluster",
            "the gauges of registry and mesh have none; histograms count seconds. Opened flows are always the",
            "closed ones over all reasons plus the active ones: `nowconnect_flows_unaccounted` is 0. What is added up",
            "over agents or flows is some milliseconds older than the rest.",
            "",
            "| name | type | labels | meaning |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "Besides these, the usual `process_*` metrics: CPU seconds, resident and virtual memory, open",
            "and maximal descriptors, start time.",
            "",
        ]
    )


if __name__ == "__main__":
    print(document(), end="")
