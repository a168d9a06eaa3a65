"""What GET /metrics answers: the families of `ncfast.observe.families` in Prometheus' text format.

Labels have bounded sets of values (see `LABEL_CAP`). All numbers of one answer are read in one turn of the loop; those
that are sums over agents or flows were added up in the turns before. `python -m ncfast.observe.metrics` prints the page
of the documentation.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Protocol

from ncfast.observe.families import METRICS, Metric, Value
from ncfast.observe.histogram import Histogram
from ncfast.observe.slices import Slices, each, spread
from ncfast.observe.stats import Stats

LABEL_CAP = 200  # values of one label; further ones are added up under "other"
PEER_CAP = 50  # the same for `peer`, which has a series for each state of a link
CONNECTORS = 50  # of one agent, beside those of this hub's listeners; further ones are added up under "other" as well
OTHER = "other"
VALUES = 256  # labelled values looked at in one slice, about 0.5 ms
HISTOGRAMS = 16  # the same of these, which have a sample for each bucket
SAMPLES = 64  # written in one slice, about 0.5 ms


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
    """Keeps the values of each label bounded: those that came first have their own series.

    What a counter has counted stays where it was shown first, under its own name or under "other": a sum that moved
    would go back where it was. A value that only gauges have gives its series back when a whole scrape has not seen it.
    """

    def __init__(self) -> None:
        self._counted: dict[str, dict[str, str]] = {}  # by label: how a counter's value is shown
        self._current: dict[str, dict[str, str]] = {}  # of values that gauges alone have: those with their own series
        self._seen: dict[str, set[str]] = {}  # values of gauges in this scrape
        self._own: Counter[str] = Counter()  # by label: values with their own series
        self._overflow: dict[str, set[str]] = {}
        for metric in METRICS:  # words of ours come first, whatever is counted beside them
            for label, known in zip(metric.labels, metric.known, strict=False):
                for value in known if isinstance(known, tuple) else ():
                    self.bound(label, value, lasting=True)

    def start(self, hub: dict[str, Any]) -> None:
        """Starts a scrape. Configured names come first: what agents announce cannot crowd them out."""
        self._overflow.clear()
        self._seen.clear()
        for label, member in (("listener", "name"), ("connector", "connector")):
            configured = dict.fromkeys(entry[member] for entry in hub["listeners"])
            self._make_room(label, configured)
            for value in configured:
                self.bound(label, value, lasting=False)

    def _make_room(self, label: str, configured: Mapping[str, object]) -> None:
        """Takes their series from values that nobody has configured, where there is no other for one that somebody has
        by now."""
        current, counted = self._current.setdefault(label, {}), self._counted.setdefault(label, {})
        new = sum(value not in current and value not in counted for value in configured)
        least = LABEL_CAP - new
        for value in [value for value in current if value not in configured][: max(0, self._own[label] - least)]:
            del current[value]
            self._own[label] -= 1

    def bound(self, label: str, value: str, *, lasting: bool) -> str:
        """How a value is shown; `lasting` says that a counter has it."""
        counted = self._counted.setdefault(label, {})
        current = self._current.setdefault(label, {})
        shown = counted.get(value, current.get(value))
        if shown is None:
            if self._own[label] < (PEER_CAP if label == "peer" else LABEL_CAP):
                self._own[label] += 1
                shown = current[value] = value[:64].encode("utf-8", "backslashreplace").decode()
            else:
                shown = OTHER
        if shown == OTHER != value:
            self._overflow.setdefault(label, set()).add(value)
        if lasting:
            counted[value] = shown
            current.pop(value, None)
        else:
            self._seen.setdefault(label, set()).add(value)
        return shown

    def finish(self) -> dict[str, int]:
        """Ends a whole scrape. How many values of each label are under "other" in it."""
        for label, current in self._current.items():
            for value in current.keys() - self._seen.get(label, set()):
                del current[value]
                self._own[label] -= 1
        return {label: len(self._overflow.get(label, ())) for label in self._counted}


class Metrics:
    """Answers one hub's scrapes, one after the other."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._labels = Labels()

    async def exposition(self) -> bytes:
        """The whole answer."""
        # both in a thread, as nothing of ours is read: loading takes some 15 ms, and the kernel's answer may as well
        exposition = await asyncio.to_thread(_library)
        return await spread(self.render()) + await asyncio.to_thread(exposition.process)

    def render(self) -> Slices[bytes]:
        """The hub's own families."""
        exposition = _library()
        totals = yield from self._hub.snapshot.totals()
        self._labels.start(totals)
        values = [_still(metric.read(self._hub.stats, totals)) for metric in METRICS]  # in the turn of the totals
        yield
        text: list[bytes] = []
        for metric, value in zip(METRICS, values, strict=True):
            born = list(metric.born(self._hub.stats, totals))
            yield from exposition.write((yield from self._family(metric, value, born)), SAMPLES, text.append)
        overflow = yield from self._family(OVERFLOW, self._labels.finish(), [])
        yield from exposition.write(overflow, SAMPLES, text.append)
        return b"".join(text)

    def _family(self, metric: Metric, value: Any, born: list[tuple[str, ...]]) -> Slices[Any]:
        """The family with all its samples; those in `born` are there whatever was counted."""
        family = _library().empty(metric)
        sums: dict[tuple[str, ...], Any] = {}
        lasting = metric.kind != "gauge"

        def add(items: list[tuple[Any, Any]]) -> None:
            for key, number in items:
                values = key if isinstance(key, tuple) else (key,)
                shown = tuple(
                    self._labels.bound(label, one, lasting=lasting)
                    for label, one in zip(metric.labels, values, strict=True)
                )
                sums[shown] = sums[shown] + number if shown in sums else number

        yield from each([(key, 0) for key in born], VALUES, add)
        yield from each(list(value.items()) if isinstance(value, Mapping) else [((), value)], VALUES, add)
        most = HISTOGRAMS if metric.kind == "histogram" else VALUES
        yield from each(list(sums.items()), most, lambda some: [_library().add(family, *one) for one in some])
        return family


def _library() -> ModuleType:
    from ncfast.observe import exposition

    return exposition


def _still(value: Value) -> Any:
    """What was read, as it is now: counting goes on while the answer is written."""
    if isinstance(value, Mapping):
        return {key: _still(one) for key, one in value.items()}
    return value.copy() if isinstance(value, Histogram) else value


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
            f"`{OTHER}`, and `{OVERFLOW.name}` says how many they are. What a counter has counted",
            "keeps its place; what only gauges show gives it back after a scrape without it. Of one agent's connectors",
            f"{CONNECTORS} have a value of their own, and those that a listener of this hub leads to. No label holds",
            "a flow, an agent, a tenant or a client's address; `peer` is a hub's `replica_id`, or its configured URL",
            "until it has said its name. Counters are there from the start, at 0, for every listener and every word",
            "that a label is known to say, so that `increase()` and alerts see the first event; for a peer since it",
            "was linked first. Without a cluster the gauges of registry and mesh have no series. Histograms count",
            "seconds. Opened flows are always the closed ones over all reasons plus the active ones:",
            "`nowconnect_flows_unaccounted` is 0. What is added up over agents or flows is some milliseconds older",
            "than the rest.",
            "",
            "`nowconnect_cluster_info` says which cluster a hub is of. Join it where Prometheus has several:",
            "`sum by (cluster) (nowconnect_agents * on (job, instance) group_left (cluster) nowconnect_cluster_info)`.",
            "An agent's own metrics: [asking an agent](operations.md#asking-an-agent).",
            "[Objectives](slo.md) and what they are measured by have a page of their own.",
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
