"""What the flows of a hub, or of an agent, feel when that is upgraded: how long they stand still, and what both
processes need meanwhile.

    python -m bench.upgrade [--of hub,agent] [--flows 100,1000,10000] [--busy 200]

One agent holds all flows. Busy ones play ping-pong, each with a pause between two rounds; the longest round of each,
ended while the upgrade was under way or in the second behind it, is its pause. Of all flows, the idle ones too, hub and
agent say how long they had no way. Memory is the sum of both
processes' resident sets at its highest, CPU what each has used from the moment at which the successor is ready. Each
idle flow must answer afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import secrets
import signal
import statistics
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import uvloop

from bench import service
from bench.process import START_SEC, Process, cpu_sec, resident_bytes, running
from bench.rig import Address
from ncfast.auth import mint
from ncfast.demo import stage

MIB = 1 << 20
MESSAGE = 1024  # bytes of a round
THINK_SEC = 0.05  # between two rounds of a flow: 200 of them are 4,000 messages a second each way
AT_ONCE = 64  # flows opened together
CALM_SEC = 1.0  # before and after
SAMPLE_SEC = 0.01


class Watch(threading.Thread):
    """Samples two processes until the first of them has gone."""

    def __init__(self, predecessor: int, successor: int) -> None:
        super().__init__()
        self._pids = (predecessor, successor)
        self._begun = {pid: cpu_sec(pid) for pid in self._pids}
        self.cpu = dict.fromkeys(self._pids, 0.0)
        self.before = resident_bytes(predecessor)
        self.peak = 0
        self.over = threading.Event()

    def run(self) -> None:
        with suppress(OSError, RuntimeError):
            while not self.over.wait(SAMPLE_SEC):
                self.peak = max(self.peak, sum(resident_bytes(pid) for pid in self._pids))
                for pid in self._pids:
                    self.cpu[pid] = cpu_sec(pid) - self._begun[pid]


class Flows:
    """All clients. `longest` has, for each busy one, the longest round that ended since `measure` was called."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.longest: dict[int, float] = {}
        self._talks: list[asyncio.Task[None]] = []

    async def open(self, idle: int, busy: int) -> None:
        for start in range(0, idle, AT_ONCE):
            self.idle += await asyncio.gather(*(self._connect() for _ in range(min(AT_ONCE, idle - start))))
        for number in range(busy):
            self._talks.append(asyncio.create_task(self._talk(number, *await self._connect())))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self._address)
        await _round(reader, writer, b"hello, 12")
        return reader, writer

    def measure(self) -> None:
        self.longest = {}

    async def _talk(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        message = os.urandom(MESSAGE)
        while True:
            begun = time.perf_counter()
            await _round(reader, writer, message)
            self.longest[number] = max(self.longest.get(number, 0.0), time.perf_counter() - begun)
            await asyncio.sleep(THINK_SEC)

    async def check(self) -> None:
        """Raises what has gone wrong with any of them."""
        for start in range(0, len(self.idle), AT_ONCE):
            await asyncio.gather(*(_round(*one, b"still there?") for one in self.idle[start : start + AT_ONCE]))
        for talk in self._talks:
            if talk.done():
                talk.result()
            talk.cancel()


async def _round(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> None:
    writer.write(message)
    if await reader.readexactly(len(message)) != message:
        raise RuntimeError("another answer than what was sent")


def _events(process: Process, name: str) -> list[dict]:
    lines = process.log.read_text(errors="replace").splitlines()
    return [event for line in lines if line.startswith("{") and (event := json.loads(line))["event"] == name]


async def _event(process: Process, name: str, count: int = 1) -> dict:
    deadline = time.monotonic() + START_SEC
    while len(found := _events(process, name)) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {name}:\n{process.log.read_text()[-2000:]}")
        await asyncio.sleep(0.001)
    return found[count - 1]


async def measured(folder: Path, echo: Address, role: str, flows: int, busy: int) -> dict[str, float | str]:
    """One upgrade of a hub, or an agent, with so many flows, `busy` of them moving."""
    key = secrets.token_hex(32)
    hub_file = stage.hub_file(
        folder / "hub.yaml", stage.write(folder / "jwt.key", key), more="logging: { format: json }\n"
    )
    token = stage.write(folder / "token", mint(key.encode(), stage.AGENT, [stage.CONNECTOR]))
    command = [sys.executable, "-m", "ncfast"]
    with running([*command, "hub", "--stay-parent", "--config", hub_file], folder / "hub.log") as hub:
        ready = await _event(hub, "hub_ready")
        file = stage.agent_file(folder / "agent.yaml", [ready["edge"]], token, echo, more="logging: { format: json }\n")
        with running([*command, "agent", "--stay-parent", "--config", file], folder / "agent.log") as agent:
            await _event(hub, "agent_connected")
            clients = Flows(stage.address(ready["listeners"][stage.CONNECTOR]))
            await clients.open(flows - busy, busy)
            await asyncio.sleep(CALM_SEC)
            upgraded = hub if role == "hub" else agent
            upgraded.signal(signal.SIGUSR2)
            successor = (await _event(upgraded, "upgrade_started"))["pid"]
            if role == "hub":  # an agent says nothing before it has everything
                await _event(hub, "hub_ready", 2)
            clients.measure()
            watch = Watch(upgraded.pid, successor)
            watch.start()
            done = await _event(upgraded, "upgrade_done")
            await asyncio.sleep(CALM_SEC)
            watch.over.set()
            longest = sorted(clients.longest.values())
            passed = await _event(upgraded, "upgrade_passed")
            await clients.check()
    if (done["result"], done["passed"]) != ("done", flows):
        raise RuntimeError(f"not all has passed: {done}")
    return {
        "of": role,
        "flows": flows,
        "busy, median ms": statistics.median(longest) * 1e3,
        "busy, worst ms": longest[-1] * 1e3,
        "all, worst ms": done.get("longest_pause_sec", math.nan) * 1e3,
        "hand-over ms": passed["duration_sec"] * 1e3,
        "before MiB": watch.before / MIB,
        "both at the peak MiB": watch.peak / MIB,
        "predecessor CPU ms": watch.cpu[upgraded.pid] * 1e3,
        "successor CPU ms": watch.cpu[successor] * 1e3,
    }


def _shown(figure: float | str) -> str:
    return f"{figure:,.1f}" if isinstance(figure, float) else f"{figure:,}" if isinstance(figure, int) else figure


async def main(roles: list[str], counts: list[int], busy: int) -> None:
    """Prints a table."""
    for number, (role, count) in enumerate(itertools.product(roles, counts)):
        with tempfile.TemporaryDirectory(prefix="ncfast-upgrade-") as made, service.echo(Path(made)) as echo:
            figures = await measured(Path(made), echo.address, role, count, min(busy, count))
        if not number:
            print("| " + " | ".join(figures) + " |\n|" + " --- |" * len(figures))
        print("| " + " | ".join(_shown(figure) for figure in figures.values()) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", default="hub,agent", help="what is upgraded (%(default)s)")
    parser.add_argument("--flows", default="100,1000,10000", help="of each run (%(default)s)")
    parser.add_argument("--busy", type=int, default=200, help="of them (%(default)s)")
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(given.of.split(","), [int(count) for count in given.flows.split(",")], given.busy))
