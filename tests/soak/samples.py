"""What each process uses, sampled while the soak runs, and whether it stays flat."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from support.ncfast_process import Agent, Hub

from .installation import Installation
from .ledger import Ledger

MIB = 1 << 20
ENOUGH_SEC = 60.0  # of life after the warm-up, below which nothing is said about a process
WARM_UP_SEC = 60.0  # at most: buffers, caches and pools fill up to the load


@dataclass(frozen=True)
class Bound:
    """The last third's median may be above the first third's by a share and an amount: load and scatter."""

    share: float
    amount: float

    def holds(self, first: float, last: float) -> bool:
        return last <= first * (1 + self.share) + self.amount


BOUNDS = {
    "rss": Bound(0.10, 8 * MIB),
    "files": Bound(0.25, 16),
    "threads": Bound(0, 2),
}


@dataclass(frozen=True)
class Sample:
    """One look at a process; bytes held, flows and the loop's lag are the hub's own word, as nobody asks agents."""

    at: float
    rss: int
    files: int
    threads: int
    held: int | None = None
    flows: int | None = None
    lag: float | None = None  # the upper bound of the slowest timer since the sample before, seconds


@dataclass
class Life:
    """The samples of one process."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list)
    lag_counts: dict[float, float] = field(default_factory=dict)

    def settled(self, warm_up: float) -> list[Sample]:
        """The samples after the warm-up."""
        begin = self.samples[0].at + warm_up if self.samples else 0
        return [sample for sample in self.samples if sample.at >= begin]

    def thirds(self, what: str, warm_up: float) -> tuple[float, float] | None:
        """Medians of the first and the last third; None if the process has not lived long enough."""
        settled = self.settled(warm_up)
        if len(settled) < 3 or settled[-1].at - settled[0].at < ENOUGH_SEC:
            return None
        values = [getattr(sample, what) for sample in settled]
        third = len(values) // 3
        return median(values[:third]), median(values[-third:])

    def grown(self, warm_up: float) -> Iterable[str]:
        """What has not stayed flat."""
        for what, bound in BOUNDS.items():
            thirds = self.thirds(what, warm_up)
            if thirds and not bound.holds(*thirds):
                first, last = (f"{each / MIB:.0f} MiB" if what == "rss" else f"{each:.0f}" for each in thirds)
                yield f"{what} of {self.name} (pid {self.pid}) has grown from {first} to {last}"

    def worst(self, what: str) -> Any:
        return max((value for sample in self.samples if (value := getattr(sample, what)) is not None), default=None)


def look(pid: int) -> dict[str, int]:
    """What the kernel says of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {
        "rss": int(fields["VmRSS"].split()[0]) * 1024,
        "threads": int(fields["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


class Sampler:
    """Looks at hubs and agents every ``interval`` seconds, as long as the load lasts."""

    def __init__(self, site: Installation, interval: float) -> None:
        self._site = site
        self.interval = interval
        self.lives: dict[int, Life] = {}

    async def run(self, until: float) -> None:
        while time.monotonic() < until:
            await asyncio.gather(
                *(asyncio.to_thread(self._sample, name, one) for name, one in self._site.processes().items())
            )
            await asyncio.sleep(self.interval)

    def _sample(self, name: str, one: Hub | Agent) -> None:
        pid = one.program.pid
        life = self.lives.setdefault(pid, Life(name, pid))
        try:
            seen: dict[str, Any] = look(pid)
            if isinstance(one, Hub) and name not in self._site.cluster.away:
                seen |= self._word_of(one, life)
        except (OSError, KeyError, http.client.HTTPException):
            return  # it has just ended, or only just begun
        life.samples.append(Sample(time.monotonic(), **seen))

    def _word_of(self, hub: Hub, life: Life) -> dict[str, Any]:
        status = hub.status()
        counts = {
            float(bound): count for (bound,), count in hub.metric_by("nowconnect_loop_lag_seconds_bucket").items()
        }
        before, life.lag_counts = life.lag_counts, counts
        lag = slowest(before, counts)
        return {"held": status["memory"]["held_bytes"], "flows": status["flows"]["active"], "lag": lag}


def slowest(before: dict[float, float], now: dict[float, float]) -> float:
    """The upper bound of the slowest event between two readings of a cumulative histogram."""
    total = max(now.values()) - max(before.values(), default=0)
    bounds = [bound for bound in sorted(now) if now[bound] - before.get(bound, 0) >= total]
    return bounds[0] if bounds else 0.0


def check_flat(lives: Iterable[Life], ledger: Ledger, warm_up: float) -> None:
    """What grew is a failure."""
    for life in lives:
        for growth in life.grown(warm_up):
            ledger.fail(growth)
