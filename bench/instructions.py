"""``python -m bench.instructions``: what connections and messages cost hub and agent, in instructions of user space.

Both stand under ``valgrind --tool=callgrind``, which counts every instruction and none of the kernel's: the figures do
not swing with the machine, nor with what else it does. It counts from when it is told to, so nothing of the start is in
them. What the processes do by the clock falls into a count, the more of it the slower the machine is: of each batch it
is measured, with the flows standing, and taken off by time. A figure is the median of several batches, since a
collection or a complaint of the watchdog falls into some of them.

``open`` is from a client's connect to the first byte that has come back: accept, M_OPEN, the agent's connect,
M_OPEN_ACK, a byte each way. ``close`` is from its FIN until the hub has written the flow's line. ``message`` is 128
bytes and their echo. ``instructions.json`` has the budget; ``--keep`` writes what was measured as the new one.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import service
from bench.process import on_one_cpu
from bench.rig import ROOT, Address, ncfast

BUDGET = Path(__file__).with_name("instructions.json")
ROOM = 0.20  # above the budget: another build or compiler; runs of one tree on a busy machine were up to 13 % apart
WARM_UP = 10
BATCHES = 3
CONNECTIONS = 32  # of a batch; as many, and as many messages, as make what the clock brings a small part
MESSAGES = 1000
IDLE_SEC = 2.0
PATIENCE_SEC = 300.0
MESSAGE = b"x" * 128
PROGRAMS = ("valgrind", "vgdb")


@dataclass(frozen=True)
class Count:
    """The instructions of one process in a time."""

    instructions: int
    sec: float

    def each(self, number: int, idle: Count) -> float:
        """Of one of ``number`` pieces of work, without what comes by the clock."""
        return (self.instructions - idle.instructions / idle.sec * self.sec) / number


class Counter:
    """The instructions of one process, which runs under callgrind."""

    def __init__(self, folder: Path, role: str) -> None:
        self._out = folder / f"{role}.callgrind"
        self._dumps = 0
        self._since = 0.0
        self.pid = 0

    @property
    def under(self) -> list[str]:
        return [
            *("env", "PYTHONHASHSEED=0"),  # else tables have other collisions in each run
            *("valgrind", "--quiet", "--tool=callgrind"),
            *("--instr-atstart=no", f"--callgrind-out-file={self._out}"),
        ]

    def begin(self, pid: int) -> None:
        self.pid = pid
        self._tell("instrumentation", "on")

    def read(self) -> Count:
        """Since the last time."""
        self._tell("dump")
        before, self._since = self._since, time.monotonic()
        self._dumps += 1
        dump = Path(f"{self._out}.{self._dumps}")
        (total,) = [line for line in dump.read_text().splitlines() if line.startswith("totals:")]
        dump.unlink()
        return Count(int(total.split()[1]), self._since - before)

    def _tell(self, *words: str) -> None:
        argv = ["vgdb", f"--pid={self.pid}", *words]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE_SEC, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stdout}")


def measure(folder: Path, tree: Path = ROOT) -> dict[str, int]:
    """Instructions by role and phase."""
    counters = {"hub": Counter(folder, "hub"), "agent": Counter(folder, "agent")}
    under = {role: counter.under for role, counter in counters.items()}
    with (
        service.echo(folder) as echo,
        ncfast("counted", echo.address, folder, tree=tree, under=under) as way,
        on_one_cpu(list(way.pids.values())),  # whoever is woken comes in turn: how many turns of a loop does not vary
    ):
        for counter, pid in zip(counters.values(), way.pids.values(), strict=True):
            counter.begin(pid)
        clients = Clients(way.address, folder / "counted-hub.log")
        clients.open(WARM_UP)
        clients.talk(WARM_UP)
        clients.close()
        found: dict[str, list[float]] = {}
        for _ in range(BATCHES):
            opened = _counted(counters, lambda: clients.open(CONNECTIONS))
            idle = _counted(counters, lambda: time.sleep(IDLE_SEC))
            talked = _counted(counters, lambda: clients.talk(MESSAGES))
            closed = _counted(counters, clients.close)
            for phase, counts, number in (
                ("open", opened, CONNECTIONS),
                ("message", talked, MESSAGES),
                ("close", closed, CONNECTIONS),
            ):
                for role, count in counts.items():
                    found.setdefault(f"{role} {phase}", []).append(count.each(number, idle[role]))
        return {name: round(statistics.median(values)) for name, values in found.items()}


def _counted(counters: dict[str, Counter], work: Callable[[], None]) -> dict[str, Count]:
    """By role, what ``work`` took and what fell into it."""
    for counter in counters.values():
        counter.read()
    work()
    return {role: counter.read() for role, counter in counters.items()}


class Clients:
    """One after the other, so that no two share a turn of the loop."""

    def __init__(self, address: Address, log: Path) -> None:
        self._address = address
        self._log = log
        self._closed = 0
        self._sockets: list[socket.socket] = []

    def open(self, count: int) -> None:
        for _ in range(count):
            client = socket.create_connection(self._address, timeout=PATIENCE_SEC)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(client)
            _exchange(client, b"x")

    def talk(self, count: int) -> None:
        for _ in range(count):
            _exchange(self._sockets[0], MESSAGE)

    def close(self) -> None:
        """All of them, and waits for the hub's last line."""
        for client in self._sockets:
            client.close()
            self._closed += 1
            _until(lambda: self._log.read_text().count('"flow_closed"') == self._closed)
        self._sockets.clear()


def _exchange(client: socket.socket, message: bytes) -> None:
    client.sendall(message)
    missing = len(message)
    while missing:
        got = len(client.recv(missing))
        if not got:
            raise ConnectionError("the hub closed a flow that should stand")
        missing -= got


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SEC
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the hub has not written a flow's line in {PATIENCE_SEC:g} s")
        time.sleep(0.005)


def interpreter() -> str:
    """What a budget holds for: instructions of another version are others."""
    return ".".join(platform.python_version_tuple()[:2])


def over(results: dict[str, int], budget: dict[str, int]) -> list[str]:
    """What takes more than its budget and ROOM, in a sentence each."""
    return [
        f"{name}: {results[name]:,} instructions, {results[name] / most - 1:+.0%} over its budget of {most:,}"
        for name, most in budget.items()
        if results[name] > most * (1 + ROOM)
    ]


def budget() -> dict[str, int] | None:
    """None for a version of Python that has none."""
    return json.loads(BUDGET.read_text()).get(interpreter())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--before", type=Path, metavar="DIR", help="a built tree of an earlier state, measured as well")
    parser.add_argument("--keep", action="store_true", help="make it the budget of this version of Python")
    options = parser.parse_args()
    for program in PROGRAMS:
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not installed (Debian: valgrind)")
    columns = {"now": ROOT} | ({"before": options.before.resolve()} if options.before else {})
    figures = {}
    for name, tree in columns.items():
        with tempfile.TemporaryDirectory(prefix="ncfast-instructions-") as folder:
            figures[name] = measure(Path(folder), tree)
    figures["budget"] = budget() or {}
    for line in table(figures):
        print(line)
    if options.keep:
        kept = json.loads(BUDGET.read_text()) | {interpreter(): figures["now"]}
        BUDGET.write_text(json.dumps(kept, indent=2) + "\n")
        return 0
    return 1 if over(figures["now"], figures["budget"]) else 0


def table(figures: dict[str, dict[str, int]]) -> Iterator[str]:
    yield f"{'':15}" + "".join(f"{name:>12}" for name in figures)
    for row in figures["now"]:
        yield f"{row:15}" + "".join(
            f"{column[row]:>12,}" if row in column else f"{'':12}" for column in figures.values()
        )


if __name__ == "__main__":
    sys.exit(main())
