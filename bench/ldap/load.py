"""A load of LDAP clients, and what they felt: `bench/ldap/clients.c` started, waited for, and read."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from bench.compiled import program
from bench.ldap.directory import ADMIN, ENTRIES, PASSWORD, PEOPLE
from bench.rig import Address

OPERATIONS = ("bind", "search", "modify", "unbind")
SLICES = 200  # of a run, whose operations are looked at by themselves
HANG_SEC = 60.0  # beyond the time that a load was given


@dataclass(frozen=True)
class Load:
    """So many operations a second, for so many seconds after a warm-up, from the shares of a mix.

    ``once``: every operation has a connection of its own, and unbinds; otherwise ``connections`` are kept. An operation
    fails when ``limit_sec`` have passed since it was due.
    """

    rate: float
    sec: float
    mix: dict[str, int]
    connections: int
    once: bool = False
    limit_sec: float = 15.0
    warm_sec: float = 1.0

    @property
    def asked_for(self) -> dict[str, int]:
        """The mix; with a connection for each operation the unbind of each is no operation of its own."""
        return {name: 0 if self.once and name == "unbind" else self.mix.get(name, 0) for name in OPERATIONS}

    @property
    def slice_sec(self) -> float:
        return max(0.05, round(self.sec / SLICES, 2))

    def command(self, addresses: Iterable[Address]) -> list[str]:
        """The generator's command line; who is refused at one address takes the next."""
        return [
            *(
                program("ldap/clients"),
                "-a",
                ",".join("%s:%d" % each for each in addresses),
                "-r",
                str(self.rate),
                "-t",
                str(self.sec),
            ),
            *("-w", str(self.warm_sec), "-c", str(self.connections), "-l", str(self.limit_sec)),
            *("-m", ",".join(map(str, self.asked_for.values())), "-i", str(round(self.slice_sec * 1000))),
            *("-e", str(ENTRIES), "-b", PEOPLE, "-D", ADMIN, "-P", PASSWORD, *(["-o"] if self.once else [])),
        ]


@dataclass(frozen=True)
class Histogram:
    """Times of operations that were answered, and how many were not. ``buckets`` are pairs of microseconds and a
    count, the shortest first; each is within 0.1 % of what was measured."""

    count: int = 0
    failed: int = 0
    max: int = 0
    buckets: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def merged(cls, several: Iterable[Histogram]) -> Self:
        sums: dict[int, int] = {}
        count = failed = most = 0
        for one in several:
            count, failed, most = count + one.count, failed + one.failed, max(most, one.max)
            for value, times in one.buckets:
                sums[value] = sums.get(value, 0) + times
        return cls(count, failed, most, sorted(sums.items()))

    def ms(self, share: float) -> float:
        """The time within which so large a share was answered, in milliseconds; 0 if nothing was."""
        wanted, seen = self.count * share, 0
        for value, times in self.buckets:
            seen += times
            if seen > wanted:
                return min(value, self.max) / 1e3
        return self.max / 1e3


@dataclass(frozen=True)
class Slice:
    """Operations that were due within a slice of the run; times in milliseconds, of those that were answered."""

    count: int
    failed: int
    median: float
    longest: float


@dataclass(frozen=True)
class Felt:
    """What the clients of one run felt."""

    load: Load
    started: float  # when the counting began, by time.monotonic()
    cpu_sec: float  # of the generator
    dropped: dict[str, int]  # connections that were lost while no operation was on them, and how
    failures: dict[str, int]
    lateness: Histogram  # of the generator: from when an operation was due to when it saw so
    operations: dict[str, Histogram]
    slices: list[Slice]

    @property
    def every(self) -> Histogram:
        """All operations of the mix."""
        wanted = self.load.asked_for
        return Histogram.merged(one for name, one in self.operations.items() if wanted[name])

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def asked(self) -> int:
        return self.failed + sum(one.count for one in self.operations.values())

    @property
    def errors_percent(self) -> float:
        return 100 * self.failed / self.asked if self.asked else 100.0

    @property
    def why(self) -> str:
        """How operations failed, in words."""
        return ", ".join(f"{count} {name}" for name, count in self.failures.items() if count)


class Clients:
    """A load under way."""

    def __init__(self, load: Load, addresses: Sequence[Address]) -> None:
        self.load = load
        self._argv = load.command(addresses)
        self._child = subprocess.Popen(self._argv, stdout=subprocess.PIPE)

    def wait(self) -> Felt:
        """What they felt. Raises RuntimeError when the generator fails."""
        load = self.load
        out, _ = self._child.communicate(timeout=load.warm_sec + load.sec + load.limit_sec + HANG_SEC)
        if self._child.returncode:
            raise RuntimeError(f"{' '.join(self._argv)} exited with {self._child.returncode}")
        return read(load, out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()


def read(load: Load, out: bytes) -> Felt:
    """What the generator has written."""
    got: dict[str, Any] = orjson.loads(out)
    return Felt(
        load=load,
        started=got["started_ns"] / 1e9,
        cpu_sec=got["cpu_sec"],
        dropped=got["dropped"],
        failures=got["failures"],
        lateness=_histogram(got["lateness"]),
        operations={name: _histogram(one) for name, one in got["operations"].items()},
        slices=[Slice(count, failed, median / 1e3, longest / 1e3) for count, failed, median, longest in got["slices"]],
    )


def _histogram(got: dict[str, Any]) -> Histogram:
    return Histogram(got["count"], got["failed"], got["max"], [(value, times) for value, times in got["buckets"]])
