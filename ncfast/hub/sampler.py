"""Fills the hub's history: what is read for a sample is counters and links, never all flows or agents."""

from __future__ import annotations

from math import nan

from ncfast.hub.ground import Ground
from ncfast.hub.ways import Ways
from ncfast.observe.history import PERIOD, History, quantile
from ncfast.observe.stats import LATENCY_BUCKETS


class Sampler:
    """Asked at every tick of the hub."""

    def __init__(self, ground: Ground, ways: Ways) -> None:
        self.history = History()
        self._ground = ground
        self._ways = ways
        self._at = ground.clock()  # of the last sample, as are the counters below
        self._bytes = (0, 0)
        self._opened = 0
        self._latencies = [0] * (len(LATENCY_BUCKETS) + 1)
        self._links: dict[str, int] = {}

    def tick(self, now: float) -> None:
        """Takes a sample if it is time. Rates are by the time that has passed, be it more than `PERIOD`."""
        passed = now - self._at
        if passed < PERIOD:
            return
        self._at = now
        context, stats = self._ground.context, self._ground.stats
        opened, both = stats.flows_opened, (context.bytes_read, context.bytes_in)
        counts = [one.open_latency.counts for one in stats.listeners.values()]
        latencies = [sum(each) for each in zip(*counts, strict=True)]
        since = [count - before for count, before in zip(latencies, self._latencies, strict=False)]
        self.history.add(
            (
                len(self._ground.flows),
                (both[0] - self._bytes[0]) / passed,
                (both[1] - self._bytes[1]) / passed,
                (opened - self._opened) / passed,
                quantile(LATENCY_BUCKETS, since, 0.99),
                max((peer.link.rtt for peer in self._ways.peers() if peer.link.rtt), default=nan),
                context.held,
            )
        )
        self._opened, self._bytes = opened, both
        self._latencies = latencies or self._latencies
        self._sample_links(passed)

    def _sample_links(self, passed: float) -> None:
        """A link that came anew counts from 0: its first rate is of all it has carried."""
        totals = {peer.replica_id: peer.link.bytes_in + peer.link.bytes_out for peer in self._ways.peers()}
        before, self._links = self._links, totals
        self.history.links = {
            name: (total - (before.get(name, 0) if before.get(name, 0) <= total else 0)) / passed
            for name, total in totals.items()
        }
