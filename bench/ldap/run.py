"""One session: every way with every kind of load, then every fault; what the clients felt of each."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.cluster import Cluster, cluster
from bench.ldap.directory import directory
from bench.ldap.faults import FAULTS, Roles, Timetable
from bench.ldap.load import Clients, Felt, Load
from bench.ldap.ways import ways
from bench.report import machine, version
from ncfast import __version__

KEPT, ONCE = "kept", "once"
STYLES = {KEPT: "connections kept", ONCE: "a connection for each operation"}
CLIENTS_AT_MOST = 500  # at a time, with a connection for each operation: slapd's own descriptors are some 1,000


@dataclass(frozen=True)
class Steady:
    """Nothing was done to the cluster."""

    way: str
    style: str
    felt: Felt

    @property
    def name(self) -> str:
        return f"{self.way}, {STYLES[self.style]}"


@dataclass(frozen=True)
class Hit:
    """A fault; clients of every style were there at the same time. ``marks`` are seconds of the run, and words."""

    fault: str
    felt: dict[str, Felt]
    marks: list[tuple[float, str]]


def environment() -> dict[str, Any]:
    """What is needed to judge a session, and how busy the machine is now."""
    return machine() | {"slapd": version(["slapd", "-VV"]), "ncfast": __version__}


def styled(load: Load, style: str) -> Load:
    return replace(load, once=True, connections=CLIENTS_AT_MOST) if style == ONCE else load


def session(
    load: Load, styles: Sequence[str], names: Sequence[str], faults: Sequence[str], folder: Path
) -> Iterator[Steady | Hit]:
    """``folder`` takes the files of all processes."""
    with ExitStack() as stack:
        slapd = stack.enter_context(directory(folder))
        made = stack.enter_context(cluster(slapd.address, folder))
        for way in ways(names, made, slapd.address):
            for style in styles:
                with Clients(styled(load, style), [way.address]) as clients:
                    yield _told(Steady(way.name, style, clients.wait()))
        if faults:
            made.turn("active")
        for name in faults:
            yield _hit(name, made, load, styles)


def _hit(name: str, made: Cluster, load: Load, styles: Sequence[str]) -> Hit:
    owner, _, origin = made.settled()
    fault, roles = FAULTS[name], Roles(made, owner, origin)
    with ExitStack() as stack:
        times = Timetable(time.monotonic() + load.warm_sec, load.sec)
        under_way = {
            style: stack.enter_context(Clients(styled(load, style), fault.addresses(roles))) for style in styles
        }
        fault.play(roles, times)
        felt = {style: clients.wait() for style, clients in under_way.items()}
    start = min(one.started for one in felt.values())
    for style, one in felt.items():
        _tell(f"{name}, {STYLES[style]}", one)
    return Hit(name, felt, [(at - start, words) for at, words in times.marks])


def _told(run: Steady) -> Steady:
    _tell(run.name, run.felt)
    return run


def _tell(name: str, felt: Felt) -> None:
    every = felt.every
    print(
        f"{name}: {felt.asked} asked, p50 {every.ms(0.5):.2f} ms, p99 {every.ms(0.99):.2f} ms, max "
        f"{every.max / 1e3:.0f} ms, {felt.failed} failed {felt.why}".rstrip(),
        file=sys.stderr,
        flush=True,
    )
