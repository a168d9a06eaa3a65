"""The last quarter of an hour of a hub, for the admin edge's page: one sample each `PERIOD`, in memory of a fixed size.

It is for the eye. What is to be kept, summed over hubs or alerted on is in the metrics.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import nan

PERIOD = 5.0  # seconds
SAMPLES = 180  # a quarter of an hour
CURVES = (
    "flows",  # open
    "from_clients",  # bytes/s
    "to_clients",  # bytes/s
    "opens",  # flows opened, 1/s
    "open_p99",  # seconds from accept to M_OPEN_ACK, of the flows opened since the last sample
    "mesh_rtt",  # seconds, of the slowest link
    "held",  # bytes that wait
)


class History:
    """A ring of samples. What could not be measured is NaN: no opening, no link."""

    def __init__(self) -> None:
        self._values = array("d", [nan]) * (SAMPLES * len(CURVES))
        self._next = 0
        self.links: dict[str, float] = {}  # bytes/s over the link to each peer, both ways, by the last sample

    def add(self, sample: Sequence[float]) -> None:
        """One value for each of `CURVES`; the oldest sample goes."""
        start = self._next * len(CURVES)
        for place, value in zip(range(start, start + len(CURVES)), sample, strict=True):
            self._values[place] = value
        self._next = (self._next + 1) % SAMPLES

    def curve(self, name: str) -> list[float]:
        """`SAMPLES` values, oldest first."""
        column = self._values[CURVES.index(name) :: len(CURVES)]
        return [*column[self._next :], *column[: self._next]]


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float:
    """The value below which `share` (0 to 1) of the observations are, interpolated within its bucket as Prometheus'
    histogram_quantile() does. `counts` has one more than `bounds`: what is beyond the last is told as the last. NaN of
    nothing."""
    rank = share * sum(counts)
    if not rank:
        return nan
    lower = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if rank <= count:
            return lower + (bound - lower) * rank / count
        rank -= count
        lower = bound
    return lower
