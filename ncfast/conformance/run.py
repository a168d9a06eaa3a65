"""Scenarios played against a command: each with a process of its own, several at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ncfast.conformance.broken import Broken
from ncfast.conformance.player import Player
from ncfast.conformance.scenario import Scenario
from ncfast.conformance.stage import Launch, Launched, Places

# How programs of any make are told of an authority and of a proxy, beside our own placeholders.
CUSTOMARY = {"ca_file": ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"), "proxy": ("https_proxy", "HTTPS_PROXY")}
STOP_SEC = 5  # from SIGTERM to SIGKILL
LINES = 20  # of a process's output, in a report


@dataclass(frozen=True)
class Verdict:
    scenario: Scenario
    broken: Broken | None
    output: list[str] = field(default_factory=list)  # the program's last lines


def launch(command: Sequence[str]) -> Launch:
    """The command as a process."""

    @asynccontextmanager
    async def launched(places: Places) -> AsyncIterator[Launched]:
        words = [_filled(word, places) for word in command]
        process = await asyncio.create_subprocess_exec(
            *words,
            env=_environment(places),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        lines: deque[str] = deque(maxlen=LINES)
        reading = asyncio.ensure_future(_read(process, lines))
        try:
            yield Launched(lines, lambda: _signal(process, signal.SIGTERM))
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


def _environment(places: Places) -> dict[str, str]:
    """Ours, with what the command is told, and no other proxy than the scenario's."""
    ours = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    told = {f"CONFORMANCE_{name.upper()}": value for name, value in places.items()}
    known = {name: places[place] for place, names in CUSTOMARY.items() if places.get(place) for name in names}
    return {**ours, **told, **known}


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
    while data := await process.stdout.read(4096):  # not by lines: they may be of any length
        lines.extend(data.decode(errors="replace").splitlines())


async def play(players: type[Player], scenario: Scenario, launcher: Launch, patience: float) -> Verdict:
    """One scenario, with a program of its own. Raises OSError if the command cannot be started."""
    with tempfile.TemporaryDirectory(prefix="ncfast-conformance-") as directory:
        player = players(scenario, Path(directory), patience)
        broken: Broken | None = None
        try:
            await player.start()
            async with launcher(player.places) as program:
                player.program = program
                try:
                    await player.play()
                except Broken as exc:
                    broken = exc
                finally:
                    player.close()
        finally:
            player.close()
    return Verdict(scenario, broken, list(program.lines))


async def play_all(
    players: type[Player],
    scenarios: Sequence[Scenario],
    launcher: Launch,
    *,
    patience: float,
    jobs: int,
    told: Callable[[Verdict], None],
) -> list[Verdict]:
    """All of them, `jobs` at a time; `told` hears of each as it ends."""
    room = asyncio.Semaphore(jobs)

    async def one(scenario: Scenario) -> Verdict:
        async with room:
            verdict = await play(players, scenario, launcher, patience)
            told(verdict)
            return verdict

    return await asyncio.gather(*map(one, scenarios))
