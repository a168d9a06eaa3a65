"""The demo of a cluster: three hubs, a Redis, an agent; the hub that owns the agent is killed, frozen, drained.

    clients ⇄ hub-c ⇄ (mesh) ⇄ the owner, hub-a or hub-b ⇄ (tunnel) ⇄ agent ⇄ service

The agent knows hub-a and hub-b alone, and the clients come to hub-c: every flow crosses the mesh, and what is done to
the owner is never done to the hub that holds the clients' sockets. Three acts; in each a transfer goes either way, and
at its middle the owner is struck. Hubs, agent and Redis are child processes; mesh and Redis use Unix sockets.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TextIO

from ncfast.auth import mint
from ncfast.demo import stage
from ncfast.demo.children import Child, ChildEnded
from ncfast.demo.clients import Conversations, Transfer
from ncfast.demo.service import Service
from ncfast.demo.stage import AGENT, CONNECTOR, address
from ncfast.demo.view import MIB, View, progress, talk, verdict
from ncfast.observe import adminclient

SMALL_FLOWS = 20
DEADLINE_SEC = 60  # an act that takes longer has failed; some five seconds are usual
ORIGIN = "hub-c"  # where the clients come to
OWNERS = ("hub-a", "hub-b")  # those that the agent knows
_LOOK_SEC = 0.05  # between two looks at what the hubs say
_SAMPLE_SEC = 0.005  # how exactly a standstill is measured

_HA = """\
ha:
  enabled: true
  mode: active
  replica_id: {name}
  redis_url: 'unix://{redis}'
  mesh: {{ listen_unix: {socket}, advertise: 'unix://{socket}', ping_interval_sec: 0.5, ping_timeout_sec: 2 }}
tunnel: {{ ping_interval_sec: 0.5, ping_timeout_sec: 2 }}
"""

_AGENT_MORE = """\
reconnect: { min_sec: 0.1, max_sec: 1 }
tunnel: { ping_interval_sec: 0.5, ping_timeout_sec: 2 }
"""


def missing() -> str | None:
    """What has to be installed first, as a sentence; None if nothing."""
    if shutil.which("redis-server") is None:
        return "the demo of a cluster needs redis-server; install it, for example by: apt-get install redis-server"
    return None


class Standstill:
    """The longest time that a transfer made no progress since the owner was struck."""

    def __init__(self, transfer: Transfer) -> None:
        self.seconds = 0.0
        self._transfer = transfer
        self._moved = transfer.moved
        self._since = time.monotonic()

    def look(self) -> None:
        now = time.monotonic()
        self.seconds = max(self.seconds, now - self._since)
        if self._transfer.moved != self._moved:
            self._moved, self._since = self._transfer.moved, now


class ClusterDemo:
    """One run; `megabytes` are moved each way in each act."""

    def __init__(self, out: TextIO, *, megabytes: int) -> None:
        self._size = megabytes * MIB
        self._transfers: list[Transfer] = []
        self._conversations = Conversations(SMALL_FLOWS)
        self._hubs: dict[str, Child] = {}
        self._addresses: dict[str, dict[str, str]] = {}  # of each hub, the same again when it is started again
        self._owner, self._epoch = "", 0
        self._troubles: list[str] = []
        self._results: list[str] = []
        self._view = View(out, self._block)

    # scene

    async def start(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ncfast-")))
        service = await stack.enter_async_context(Service())
        redis = str(self._directory / "redis")
        quiet = ["--port", "0", "--unixsocket", redis, "--unixsocketperm", "700", "--save", "", "--appendonly", "no"]
        self._redis = Child(*quiet, "--dir", str(self._directory), program=["redis-server"], name="redis-server")
        await stack.enter_async_context(self._redis)
        await self._redis.line("eady to accept connections")
        self._view.event("redis-server, on a Unix socket, keeps who owns the agent")

        key = secrets.token_hex(32)
        self._key_file = stage.write(self._directory / "jwt.key", key)
        for name in (*OWNERS, ORIGIN):
            await self._start_hub(name)
        await self._until(lambda seen: all(self._linked(seen, name) for name in OWNERS), "links of the mesh")
        self._view.event(f"{', '.join((*OWNERS, ORIGIN))} are linked; clients connect to {ORIGIN}")

        token_file = stage.write(self._directory / "token", mint(key.encode(), AGENT, [CONNECTOR]))
        edges = [self._addresses[name]["edge"] for name in OWNERS]
        agent_file = stage.agent_file(
            self._directory / "agent.yaml", edges, token_file, service.address, more=_AGENT_MORE
        )
        self._agent = await stack.enter_async_context(Child("agent", "--config", agent_file))
        await self._owned()
        await self._settled()
        self._view.event(
            f"the agent is owned by {self._owner} under epoch {self._epoch}, its standby is at {self._other()}"
        )

    async def _start_hub(self, name: str) -> None:
        """A hub's first or next process, at the same addresses."""
        more = _HA.format(name=name, redis=self._directory / "redis", socket=self._directory / name)
        path = stage.hub_file(
            self._directory / f"{name}.yaml", self._key_file, drain_sec=10, more=more, **self._addresses.get(name, {})
        )
        hub = await self._stack.enter_async_context(Child("hub", "--config", path, name=name))
        ready = await hub.event("hub_ready")
        self._hubs[name] = hub
        self._addresses[name] = {
            "clients": ready["listeners"]["demo"],
            "edge": ready["edge"],
            "admin": ready["admin"],
        }

    # what the hubs say

    async def _statuses(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What the hubs say at /status; those that do not answer are left out."""

        async def ask(name: str) -> dict[str, Any] | None:
            try:
                return await asyncio.to_thread(adminclient.status, f"http://{self._addresses[name]['admin']}")
            except adminclient.Unavailable:
                return None

        answers = await asyncio.gather(*map(ask, names))
        return {name: answer for name, answer in zip(names, answers, strict=True) if answer is not None}

    async def _until(self, there: Callable[[dict[str, dict[str, Any]]], bool], what: str) -> None:
        """Waits until what the hubs say is as wanted. Raises TimeoutError that says what was waited for."""
        try:
            async with asyncio.timeout(DEADLINE_SEC / 2):
                while not there(await self._statuses((*OWNERS, ORIGIN))):
                    await asyncio.sleep(_LOOK_SEC)
        except TimeoutError:
            raise TimeoutError(f"waited in vain for {what}") from None

    @staticmethod
    def _linked(seen: dict[str, dict[str, Any]], name: str) -> bool:
        """Whether the clients' hub and the other one of that name have a link."""
        return name in seen and any(
            link["peer"] == name and link["state"] == "up" for link in seen.get(ORIGIN, {})["cluster"]["mesh"]
        )

    async def _settled(self) -> None:
        """Until the agent has an owner and a standby, and the clients' hub a link to both."""
        owner, standby = self._owner, self._other()
        await self._until(
            lambda seen: (
                all(self._linked(seen, name) for name in OWNERS)
                and any(agent["epoch"] for agent in seen[owner]["agents"])
                and [agent["standby"] for agent in seen[standby]["agents"]] == [True]
            ),
            f"{owner} to own the agent and {standby} to be its standby",
        )

    def _other(self) -> str:
        return next(name for name in OWNERS if name != self._owner)

    async def _owned(self) -> None:
        """Waits until the agent is owned under a higher epoch than so far."""
        number = 1
        while (granted := await self._agent.event("tunnel_up", number))["epoch"] <= self._epoch:
            number += 1
        self._owner, self._epoch = granted["replica"], granted["epoch"]

    # acts

    async def play(self) -> bool:
        """Three acts and a summary; True when every byte arrived and each blow was felt."""
        acts: list[tuple[str, Callable[[Child], Awaitable[None]], Callable[[str], Awaitable[None]]]] = [
            ("killed", self._kill, self._again),
            ("frozen", self._freeze, self._thaw),
            ("drained", self._drain, self._again),
        ]
        talks_to, stop = address(self._addresses[ORIGIN]["clients"]), asyncio.Event()
        try:
            async with asyncio.TaskGroup() as around:
                talking = around.create_task(self._conversations.run(talks_to, stop))
                helpers = [
                    around.create_task(each)
                    for each in (
                        self._draw(),
                        *(child.ended() for child in (self._redis, self._agent, self._hubs[ORIGIN])),
                    )
                ]
                for word, strike, mend in acts:
                    async with asyncio.timeout(DEADLINE_SEC):
                        await self._act(word, strike, mend)
                stop.set()
                await talking
                for helper in helpers:
                    helper.cancel()
        except* TimeoutError as group:
            self._trouble(str(stage.first(group)) or f"gave up after {DEADLINE_SEC} s")
        except* (ConnectionError, ChildEnded) as group:
            self._trouble(f"it broke: {stage.first(group)}")
        self._view.close()
        return self._summary(len(acts))

    async def _act(
        self, word: str, strike: Callable[[Child], Awaitable[None]], mend: Callable[[str], Awaitable[None]]
    ) -> None:
        victim, epoch = self._owner, self._epoch
        seed = 2 * len(self._results) + 1
        self._transfers = [Transfer("up", self._size, seed), Transfer("down", self._size, seed + 1)]
        standstills: list[Standstill] = []
        clients_at = address(self._addresses[ORIGIN]["clients"])
        async with asyncio.TaskGroup() as work:
            runs = [work.create_task(transfer.run(clients_at)) for transfer in self._transfers]
            while max(transfer.moved for transfer in self._transfers) < self._size / 2:
                await asyncio.sleep(_SAMPLE_SEC)
            moved = ", ".join(f"{each.moved / MIB:.0f} MiB {each.direction}" for each in self._transfers)
            self._view.event(f"{victim}, the owner under epoch {epoch}, is {word} ({moved} so far)")
            standstills += map(Standstill, self._transfers)
            watching = work.create_task(self._watch(standstills))
            since = time.monotonic()
            await strike(self._hubs[victim])
            await self._owned()
            self._view.event(
                f"{self._owner} owns the agent under epoch {self._epoch}, "
                f"{(time.monotonic() - since) * 1000:.0f} ms later"
            )
            await asyncio.gather(*runs)
            watching.cancel()
        for line in map(verdict, self._transfers):
            self._view.line(line)
        if not all(transfer.intact for transfer in self._transfers):
            self._trouble(f"bytes were lost or changed when {victim} was {word}")
        if self._owner == victim:
            self._trouble(f"{victim} was {word} and is the owner still")
        still = ", ".join(
            f"{each.seconds * 1000:.0f} ms {transfer.direction}"
            for each, transfer in zip(standstills, self._transfers, strict=True)
        )
        self._results.append(
            f"  owner {word:<8} {victim} to {self._owner}, epoch {epoch} to {self._epoch}; bytes "
            f"stood still for {still}"
        )
        await mend(victim)
        await self._settled()
        self._view.event(f"{victim} is back, as the agent's standby")

    async def _watch(self, standstills: list[Standstill]) -> None:
        while True:
            for each in standstills:
                each.look()
            await asyncio.sleep(_SAMPLE_SEC)

    async def _kill(self, hub: Child) -> None:
        hub.signal(signal.SIGKILL)

    async def _freeze(self, hub: Child) -> None:
        hub.signal(signal.SIGSTOP)

    async def _thaw(self, name: str) -> None:
        """The old owner goes on where it stood, and must not serve the agent on its old epoch."""
        self._hubs[name].signal(signal.SIGCONT)
        self._view.event(f"{name} is thawed; its epoch is over")

    async def _drain(self, hub: Child) -> None:
        await asyncio.to_thread(adminclient.ask, f"http://{self._addresses[hub.name]['admin']}", "/drain", "POST")

    async def _again(self, name: str) -> None:
        """The hub's process has ended, or is about to; here comes the next."""
        code = await self._hubs[name].exit_code()
        if code not in (0, -signal.SIGKILL):
            self._trouble(f"{name} ended with exit code {code}")
        self._view.event(
            f"{name} has ended ({'drained, exit code 0' if code == 0 else 'SIGKILL'}), and is started again"
        )
        await self._start_hub(name)

    # showing

    def _trouble(self, text: str) -> None:
        self._troubles.append(text)
        self._view.event(text)

    async def _draw(self) -> None:
        while True:
            self._view.refresh()
            await asyncio.sleep(0.1)

    def _block(self) -> list[str]:
        owner = f"  owner {self._owner}, epoch {self._epoch}"
        return ["", *map(progress, self._transfers), talk(self._conversations), owner]

    def _summary(self, acts: int) -> bool:
        """Say how it went; True when nothing is missing, wrong, or untried."""
        whole = not self._troubles and not self._conversations.faults and len(self._results) == acts
        lines = ["", *self._results, talk(self._conversations), *self._conversations.faults]
        lines.append("Nothing was lost, repeated or reordered." if whole else "FAILED: see above.")
        for line in lines:
            self._view.line(line)
        return whole

    async def linger(self) -> None:
        """Keep everything up until a signal."""
        for line in (
            "",
            "Everything stays up; Ctrl-C ends the demo.",
            f"  talk to the echo service   nc {self._addresses[ORIGIN]['clients'].replace(':', ' ')}",
            *(
                f"  watch {name}{' ' * 16}{sys.executable} -m ncfast status --watch --url http://{at['admin']}"
                for name, at in self._addresses.items()
            ),
            f"  kill the owner             kill -KILL {self._hubs[self._owner].pid}",
        ):
            self._view.line(line)
        await asyncio.Event().wait()


async def run(out: TextIO, *, megabytes: int, stay: bool) -> bool:
    """As `stage.perform`."""
    return await stage.perform(ClusterDemo(out, megabytes=megabytes), stay=stay)
