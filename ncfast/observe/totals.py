"""What links have counted, those that have ended included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ncfast.core.link import Link


@dataclass(slots=True)
class LinkTotals:
    """Frames by type, bytes, frames of an older epoch."""

    frames_in: Counter[str] = field(default_factory=Counter)
    frames_out: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    stale_epoch: int = 0

    def add(self, link: Link) -> None:
        """Adds what a link has counted in its life."""
        frames_in, frames_out = link.counters()
        self.frames_in.update(frames_in)
        self.frames_out.update(frames_out)
        self.bytes_in += link.bytes_in
        self.bytes_out += link.bytes_out
        self.stale_epoch += link.stale_epoch

    def plus(self, links: Iterable[Link]) -> LinkTotals:
        """These and what living links have counted so far."""
        total = LinkTotals(
            Counter(self.frames_in), Counter(self.frames_out), self.bytes_in, self.bytes_out, self.stale_epoch
        )
        for link in links:
            total.add(link)
        return total
