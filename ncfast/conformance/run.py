"""Scenarios played against a command: each with a process of its own, several at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ncfast.conformance.broken import Broken
from ncfast.conformance.player import Player
from ncfast.conformance.scenario import Scenario
from ncfast.conformance.stage import AGENT, CONNECTOR

STOP_SEC = 5  # from SIGTERM to SIGKILL
LINES = 20  # of a process's output, in a report


@dataclass(frozen=True)
class Verdict:
    scenario: Scenario
    broken: Broken | None
    output: list[str] = field(default_factory=list)  # the agent's last lines


@dataclass(frozen=True)
class Places:
    """What an agent under test is told."""

    hub: str
    other_hub: str
    agent_id: str
    connector: str
    token_file: str
    target: str

    @property
    def placeholders(self) -> dict[str, str]:
        """What stands for `{name}` in a command, and in the environment as CONFORMANCE_NAME."""
        host, _, port = self.target.rpartition(":")
        return {
            "hub": self.hub,
            "other_hub": self.other_hub,
            "agent_id": self.agent_id,
            "connector": self.connector,
            "token_file": self.token_file,
            "target": self.target,
            "target_host": host,
            "target_port": port,
        }


Launch = Callable[[Places], AbstractAsyncContextManager[deque[str]]]  # an agent; what it writes comes into the lines


def launch(command: Sequence[str]) -> Launch:
    """The command as a process."""

    @asynccontextmanager
    async def launched(places: Places) -> AsyncIterator[deque[str]]:
        words = [_filled(word, places.placeholders) for word in command]
        more = {f"CONFORMANCE_{name.upper()}": value for name, value in places.placeholders.items()}
        process = await asyncio.create_subprocess_exec(
            *words,
            env={**os.environ, **more},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        lines: deque[str] = deque(maxlen=LINES)
        reading = asyncio.ensure_future(_read(process, lines))
        try:
            yield lines
        finally:
            if process.returncode is not None:
                lines.append(f"(the command has ended with exit code {process.returncode})")
            _signal(process, signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_SEC):
                    await process.wait()
            except TimeoutError:
                _signal(process, signal.SIGKILL)
                await process.wait()
            await reading

    return launched


def _filled(word: str, values: dict[str, str]) -> str:
    """Only our placeholders are replaced: other braces are the command's own."""
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To the command and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def _read(process: asyncio.subprocess.Process, lines: deque[str]) -> None:
    assert process.stdout is not None
    while data := await process.stdout.read(4096):  # not by lines: an agent's may be of any length
        lines.extend(data.decode(errors="replace").splitlines())


async def play(scenario: Scenario, launcher: Launch, patience: float) -> Verdict:
    """One scenario, with an agent of its own. Raises OSError if the command cannot be started."""
    with tempfile.TemporaryDirectory(prefix="ncfast-conformance-") as directory:
        player = Player(scenario, Path(directory), patience)
        await player.start()
        host, port = player.service.address
        places = Places(
            hub=player.urls["a"],
            other_hub=player.urls["b"],
            agent_id=AGENT,
            connector=CONNECTOR,
            token_file=str(player.token_file),
            target=f"{host}:{port}",
        )
        broken: Broken | None = None
        try:
            async with launcher(places) as lines:
                try:
                    await player.play()
                except Broken as exc:
                    broken = exc
                finally:
                    player.close()
        finally:
            player.close()
    return Verdict(scenario, broken, list(lines))


async def play_all(
    scenarios: Sequence[Scenario], launcher: Launch, *, patience: float, jobs: int, told: Callable[[Verdict], None]
) -> list[Verdict]:
    """All of them, `jobs` at a time; `told` hears of each as it ends."""
    places = asyncio.Semaphore(jobs)

    async def one(scenario: Scenario) -> Verdict:
        async with places:
            verdict = await play(scenario, launcher, patience)
            told(verdict)
            return verdict

    return await asyncio.gather(*map(one, scenarios))
