"""The demo itself: start everything, let traffic flow, cut the tunnel again and again, compare the checksums.

    clients ⇄ hub ⇄ (tunnel, through the fault proxy) ⇄ agent ⇄ service

Hub and agent are real child processes on ports of the kernel's choice; the rest lives in this process.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TextIO

from ncfast.auth import mint
from ncfast.core.errors import NcfastError
from ncfast.demo import stage
from ncfast.demo.children import Child
from ncfast.demo.clients import Conversations, Transfer
from ncfast.demo.faultproxy import FaultProxy
from ncfast.demo.service import Service
from ncfast.demo.stage import AGENT, CONNECTOR, address
from ncfast.demo.view import MIB, View, progress, talk, verdict

SMALL_FLOWS = 20
DEADLINE_SEC = 60  # a demo that takes longer has failed; some ten seconds are usual


class Demo:
    """One run: `megabytes` are moved each way, the tunnel is cut `cuts` times meanwhile."""

    options: tuple[str, ...] = ()  # of the commands of hub and agent
    deadline_sec: float = DEADLINE_SEC

    def __init__(self, out: TextIO, *, megabytes: int, cuts: int) -> None:
        self._transfers = [Transfer("up", megabytes * MIB, seed=1), Transfer("down", megabytes * MIB, seed=2)]
        self._conversations = Conversations(SMALL_FLOWS)
        self._cuts = cuts
        self._outages: list[float] = []  # seconds from each cut to the tunnel's return
        self._tunnel = "up"
        self._view = View(out, self._block)

    async def start(self, stack: AsyncExitStack) -> None:
        """Bring everything up; `stack` takes it down again. Raises `ChildEnded` if hub or agent fail."""
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ncfast-demo-")))
        service = await stack.enter_async_context(Service())

        key = secrets.token_hex(32)
        hub_file = stage.hub_file(directory / "hub.yaml", stage.write(directory / "jwt.key", key))
        self._hub = await stack.enter_async_context(Child("hub", "--config", hub_file, *self.options))
        ready = await self._hub.event("hub_ready")
        self._clients_at = ready["listeners"]["demo"]
        self._status_at = f"http://{ready['admin']}"
        self._view.event(f"hub ready: clients connect to {self._clients_at}, agents to {ready['edge']}")

        self._proxy = await stack.enter_async_context(FaultProxy(address(ready["edge"])))
        proxy_at = "{}:{}".format(*self._proxy.address)
        token_file = stage.write(directory / "token", mint(key.encode(), AGENT, [CONNECTOR]))
        agent_file = stage.agent_file(directory / "agent.yaml", [proxy_at], token_file, service.address)
        self._agent = await stack.enter_async_context(Child("agent", "--config", agent_file, *self.options))
        await self._agent.event("tunnel_up")
        self._view.event(f"agent connected, by way of a fault proxy at {proxy_at}")

    async def play(self) -> bool:
        """Traffic, cuts, summary; True when every byte arrived."""
        size = self._transfers[0].size // MIB
        self._view.event(f"traffic: {size} MiB up, {size} MiB down, {SMALL_FLOWS} small flows beside them")
        try:
            async with asyncio.timeout(self.deadline_sec):
                await self._traffic()
        except* TimeoutError:
            self._view.event(f"gave up after {self.deadline_sec:g} s")
        except* (ConnectionError, NcfastError) as group:
            self._view.event(f"it broke: {stage.first(group)}")
        self._view.close()
        return self._summary()

    async def linger(self) -> None:
        """Keep everything up until a signal; meanwhile Enter cuts the tunnel once more."""
        for line in (
            "",
            "Everything stays up; Enter cuts the tunnel once more, Ctrl-C ends the demo.",
            f"  talk to the echo service   nc {self._clients_at.replace(':', ' ')}",
            f"  watch the hub              {sys.executable} -m ncfast status --watch --url {self._status_at}",
        ):
            self._view.line(line)
        loop, enter = asyncio.get_running_loop(), asyncio.Event()
        if sys.stdin.isatty():
            loop.add_reader(sys.stdin, lambda: enter.set() if sys.stdin.readline() else None)
        try:
            while True:
                await enter.wait()
                enter.clear()
                await self._cut()
        finally:
            loop.remove_reader(sys.stdin)

    async def _traffic(self) -> None:
        clients_at = address(self._clients_at)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as around:
            talking = around.create_task(self._conversations.run(clients_at, stop))
            helpers = [around.create_task(each) for each in (self._draw(), self._hub.ended(), self._agent.ended())]
            await self._work()
            stop.set()
            await talking
            for helper in helpers:
                helper.cancel()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as work:
            for transfer in self._transfers:
                work.create_task(transfer.run(address(self._clients_at)))
            work.create_task(self._cut_under_way())

    async def _cut_under_way(self) -> None:
        """Cut at even steps of the faster transfer, so that both are running each time."""
        for number in range(1, self._cuts + 1):
            while max(transfer.moved / transfer.size for transfer in self._transfers) < number / (self._cuts + 1):
                await asyncio.sleep(0.005)
            await self._cut()

    async def _cut(self) -> None:
        sessions = self._agent.count("tunnel_up")
        self._proxy.cut()
        since, self._tunnel = time.monotonic(), "CUT"
        moved = ", ".join(f"{transfer.moved / MIB:.0f} MiB {transfer.direction}" for transfer in self._transfers)
        self._view.event(f"cut the tunnel: connection reset at both ends ({moved} so far)")
        await self._agent.event("tunnel_up", sessions + 1)
        self._outages.append(time.monotonic() - since)
        self._tunnel = "up"
        self._view.event(f"tunnel is back after {self._outages[-1] * 1000:.0f} ms, the flows go on")

    async def _draw(self) -> None:
        while True:
            self._view.refresh()
            await asyncio.sleep(0.1)

    def _block(self) -> list[str]:
        cuts = f"  tunnel {self._tunnel}, cut {len(self._outages)} of {self._cuts} times"
        return ["", *map(progress, self._transfers), talk(self._conversations), cuts]

    def _summary(self) -> bool:
        """Say how it went; True when nothing is missing, wrong, or untried."""
        whole = (
            all(transfer.intact for transfer in self._transfers)
            and not self._conversations.faults
            and len(self._outages) == self._cuts
        )
        lines = ["", *map(verdict, self._transfers), talk(self._conversations), *self._conversations.faults]
        if self._outages:
            shortest, longest = min(self._outages) * 1000, max(self._outages) * 1000
            lines.append(f"  tunnel cut {len(self._outages)} times, away for {shortest:.0f} to {longest:.0f} ms")
        lines.append("Nothing was lost, repeated or reordered." if whole else "FAILED: see above.")
        self._view.close()
        for line in lines:
            self._view.line(line)
        return whole


async def run(out: TextIO, *, megabytes: int, cuts: int, stay: bool) -> bool:
    """As `stage.perform`."""
    return await stage.perform(Demo(out, megabytes=megabytes, cuts=cuts), stay=stay)
