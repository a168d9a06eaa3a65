"""What clients tried and what became of it: done, lost as announced, or a failure with its evidence."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf, isinf
from pathlib import Path
from typing import Any

from support.eventlog import EventLog
from support.ncfast_process import ACCESS
from support.until import PATIENCE

from bench.ldap.load import Felt, Histogram

from .announced import Announcement, meets

SLOW_TURN_SEC = 0.25  # shorter turns of a conversation are not kept: on a busy machine they are no standstill
AROUND_SEC = 3.0  # of log lines before and after a failure
LINES = 12  # of each process
LINE_SEC = 2.0  # that the line of a flow that has just ended may still be on its way
SETTLE_SEC = PATIENCE  # that a fault is given to settle, before a loss under it is judged by what is in the logs
QUIET = ("closed", "client_reset")  # reasons of flows that nothing has happened to
EXPECTED = (*QUIET, "target_reset", "no_agent")  # of those that end so all the time, or many at once


class Lost(Exception):
    """The connection failed the client."""


class CleanEnd(Lost):
    """It ended as if all had been said, and too early: only the kernel of a hub that died may do that."""


class Corrupt(Lost):
    """What came is not what was sent, which nothing excuses."""


@dataclass(eq=False)
class Trial:
    """One thing that a client tries, over connections that it makes at the beginning. Times are `time.monotonic`."""

    kind: str
    hub: str
    connector: str
    began: float
    source: str = ""  # host:port of the client, where it is known
    received: int = 0  # bytes, where it is known
    ended: float = 0
    problem: str = ""
    manner: type[Lost] = Lost


@dataclass(eq=False)
class Fault:
    """One thing that was done to the cluster."""

    kind: str
    target: str
    began: float
    announces: tuple[Announcement, ...] = ()
    connectors: frozenset[str] = frozenset()  # of the agent that it is done to
    alone: frozenset[str] = frozenset()  # those of them that no other agent serves
    patience: float = 0  # seconds that running flows are given
    struck: float = inf  # when the process was gone
    over: float = inf  # when clients may lose nothing any longer
    settled: float = inf  # when every hub and agent was in its place again


@dataclass(frozen=True)
class Failure:
    """A loss that nothing announces, or a promise that does not hold."""

    at: float  # seconds after the start
    what: str
    evidence: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Standstill:
    """A conversation's turn that took long."""

    hub: str
    began: float
    ended: float


class Logs:
    """The log files of all processes, read apart from those who wait for lines in them; from any thread."""

    def __init__(self, paths: Callable[[], dict[str, Path]]) -> None:
        self._paths = paths
        self._logs: dict[str, EventLog] = {}
        self._reading = threading.Lock()

    def _log(self, name: str, path: Path) -> EventLog:
        if name not in self._logs:
            self._logs[name] = EventLog(path, lambda: None)
        return self._logs[name]

    def access_lines(self, trial: Trial) -> list[dict[str, Any]]:
        """What the trial's origin has logged of its flows; without a source, of all flows of the listener that began
        meanwhile and ended badly."""
        since = stamp(trial.began - 1)
        with self._reading:
            log = self._log(trial.hub, self._paths()[trial.hub])
            found = log.events(ACCESS, listener=trial.connector, **({"client": trial.source} if trial.source else {}))
        found = [line for line in found if line["ts"] >= since]
        if trial.source:
            return found
        return [
            line for line in found if line["reason"] not in QUIET and trial.began - 1 <= began(line) <= trial.ended + 1
        ]

    def access(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """All lines of flows that have ended at these processes."""
        with self._reading:
            return [line for name in names for line in self._log(name, self._paths()[name]).events(ACCESS)]

    def around(self, began: float, ended: float) -> list[str]:
        """Lines of all processes between two moments, and a little before and after."""
        since, until = stamp(began - AROUND_SEC), stamp(ended + AROUND_SEC)
        told = []
        with self._reading:
            for name, path in self._paths().items():
                events = [
                    event
                    for event in self._log(name, path).events()
                    if since <= event.get("ts", "") <= until and event.get("reason") not in EXPECTED
                ]
                told += [f"{name}: {_short(event)}" for event in events[-LINES:]]
        return told


def began(line: dict[str, Any]) -> float:
    """The `time.monotonic` at which the flow of an access line began."""
    age = datetime.now(UTC) - datetime.fromisoformat(line["ts"])
    return time.monotonic() - age.total_seconds() - float(line["duration"])


def stamp(moment: float) -> str:
    """A `time.monotonic` as the logs write time."""
    wall = datetime.now(UTC) - timedelta(seconds=time.monotonic() - moment)
    return wall.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _short(event: dict[str, Any]) -> str:
    told = {key: value for key, value in event.items() if key not in ("logger", "level", "cid")}
    return " ".join(f"{key}={value}" for key, value in told.items())[:300]


class Ledger:
    """All trials, faults and failures of one soak."""

    def __init__(self, logs: Logs) -> None:
        self.began = time.monotonic()
        self.faults: list[Fault] = []
        self.failures: list[Failure] = []
        self.done: Counter[str] = Counter()
        self.lost: Counter[tuple[str, str]] = Counter()  # by kind of client and kind of fault
        self.failed: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.standstills: list[Standstill] = []
        self.times: dict[tuple[str, str], Histogram] = {}  # of LDAP operations, by kind of client and operation
        self._logs = logs
        self._telling = threading.Lock()
        self._told_until = 0.0  # up to when the logs' lines are in an earlier failure's evidence

    @asynccontextmanager
    async def trial(self, kind: str, hub: str, connector: str, limit: float) -> AsyncIterator[Trial]:
        """What is done inside is tried within ``limit`` seconds; errors of the connection end up here."""
        trial = Trial(kind, hub, connector, time.monotonic())
        self.open[kind] += 1
        try:
            async with asyncio.timeout(limit):
                yield trial
        except Lost as lost:
            trial.problem, trial.manner = str(lost), type(lost)
        except TimeoutError:
            trial.problem = f"no end after {limit:.0f} s"
        except OSError as error:
            trial.problem = errno.errorcode.get(error.errno or 0, repr(error))
        finally:
            self.open[kind] -= 1
            trial.ended = time.monotonic()
        await asyncio.to_thread(self._judge, trial)

    def _judge(self, trial: Trial) -> None:
        if not trial.problem:
            self.done[trial.kind] += 1
            return
        lines, excuse = self._explained(trial)
        if excuse:
            self.lost[trial.kind, excuse.kind] += 1
            return
        self.failed[trial.kind] += 1
        what = (
            f"{trial.kind} through {trial.hub} to {trial.connector}, {trial.ended - trial.began:.1f} s, "
            f"{trial.received} bytes received: {trial.problem}; during {self.during(trial.began, trial.ended)}"
        )
        evidence = [f"its flow: {_short(line)}" for line in lines[:LINES]]
        with self._telling:
            if trial.ended >= self._told_until:
                self._told_until = trial.ended + AROUND_SEC
                time.sleep(AROUND_SEC)  # the lines after it are wanted, too
                evidence += self._logs.around(trial.ended, trial.ended)
        self.fail(what, evidence, at=trial.ended)

    def _explained(self, trial: Trial) -> tuple[list[dict[str, Any]], Fault | None]:
        """The lines of its flows, and the fault that excuses its loss. Lines are waited for: a program may give up for
        the one connection while the other still waits for its agent."""
        told = time.monotonic() + LINE_SEC
        settled = time.monotonic() + SETTLE_SEC
        while True:
            under = (fault for fault in self.faults if fault.announces and meets(fault, trial))
            lasts = time.monotonic() < settled and any(isinf(fault.settled) for fault in under)
            lines = self._logs.access_lines(trial)
            excuse = self.excuse(trial, frozenset(line["reason"] for line in lines))
            if lasts:
                told = time.monotonic() + LINE_SEC
            if excuse or (trial.source and lines) or not (lasts or time.monotonic() < told):
                return lines, excuse
            time.sleep(0.1)

    def excuse(self, trial: Trial, reasons: frozenset[str]) -> Fault | None:
        """The fault that the documents let the trial be lost by."""
        if trial.manner is Corrupt:
            return None
        for fault in reversed(self.faults):
            if trial.manner is CleanEnd and fault.target != trial.hub:
                continue
            if any(one.covers(fault, trial, reasons) for one in fault.announces):
                return fault
        return None

    def during(self, began: float, ended: float) -> str:
        """The faults that were there between two moments."""
        names = [
            f"{fault.kind} ({fault.target}, at {fault.began - self.began:.1f} s)"
            for fault in self.faults
            if fault.began <= ended and fault.settled >= began
        ]
        return ", ".join(names) or "no fault"

    @contextmanager
    def fault(self, kind: str, target: str, *announces: Announcement, **more: Any) -> Iterator[Fault]:
        """The fault is settled when the context is left."""
        fault = Fault(kind, target, time.monotonic(), announces, **more)
        self.faults.append(fault)
        try:
            yield fault
        finally:
            fault.settled = time.monotonic()
            fault.over = min(fault.over, fault.settled)

    def turn(self, hub: str, began: float, ended: float) -> None:
        """A question was asked through a hub, and answered."""
        if ended - began >= SLOW_TURN_SEC:
            self.standstills.append(Standstill(hub, began, ended))

    def felt(self, kind: str, felt: Felt) -> None:
        """What a load of LDAP clients has felt, whatever is made of it."""
        for name, times in felt.operations.items():
            known = self.times.get((kind, name), Histogram())
            self.times[kind, name] = Histogram.merged([known, times])

    def fail(self, what: str, evidence: list[str] | None = None, at: float | None = None) -> None:
        """A promise that does not hold."""
        moment = (time.monotonic() if at is None else at) - self.began
        self.failures.append(Failure(moment, what, evidence or []))


LIMIT_SEC = 2 * PATIENCE  # for what takes a moment on an idle machine without faults
