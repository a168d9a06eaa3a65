"""What clients of one kind do all the time, and what became of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.peer import Address

from .services import Services


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    transfer: int  # bytes each way
    connects: float  # a second
    sessions: int  # of pgbench
    round_sec: int  # that a round of a program lasts that is told how long
    rsync: int  # bytes of a tree
    rsync_rate: int  # bytes a second


MIB = 1 << 20
FULL = Size(256 * MIB, 200, 20, 15, 20 * MIB, 2 * MIB)
SMALL = Size(8 * MIB, 50, 4, 2, 1 * MIB, 1 * MIB)


@dataclass(frozen=True)
class Ground:
    """What clients stand on."""

    address: Callable[[str], Address]  # of a connector
    services: Services
    directory: Path
    size: Size
    over: asyncio.Event  # after it nothing new is begun


class Load:
    """`done` counts what was answered rightly, `lost` says what was not; `longest` is the longest time in seconds that
    somebody has waited for an answer, or for the next bytes."""

    name = ""
    counted = ""  # what `done` counts, in words
    steady = True  # `done` rises all the time, so that one can wait for more of it

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.done = 0
        self.longest = 0.0
        self.lost: list[str] = []

    async def run(self) -> None:
        """Until it is over. Raises AssertionError or OSError when it cannot go on."""
        raise NotImplementedError

    async def keep(self) -> None:
        """The same; who cannot go on has lost that."""
        try:
            await self.run()
        except (AssertionError, OSError, TimeoutError) as error:
            self.lost.append(f"{self.name}: {error!r}"[:500])

    @property
    def amount(self) -> str:
        return f"{self.done:,} {self.counted}"

    @contextmanager
    def timed(self) -> Iterator[None]:
        """What is waited for inside."""
        began = time.monotonic()
        yield
        self.longest = max(self.longest, time.monotonic() - began)


class Timer(Load):
    """How late a timer is that has to do with none of it: what the machine, and whoever measures here, add to every
    time."""

    name = "timer"
    counted = "beats of a timer"
    BEAT_SEC = 0.01

    async def run(self) -> None:
        while not self.ground.over.is_set():
            with self.timed():
                await asyncio.sleep(self.BEAT_SEC)
            self.done += 1
