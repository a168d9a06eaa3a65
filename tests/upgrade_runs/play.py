"""One case, from the start of its hubs to their orderly end."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support.ncfast_process import ACCESS
from support.until import until

from .load import Ground, Load, Size, Timer
from .programs import Connects, Ldapsearch, Pgbench, Rsync
from .services import Services
from .sessions import Psql, Shell
from .sites import Case, Site, site
from .transfer import Transfer

LOADS: tuple[type[Load], ...] = (Transfer, Connects, Ldapsearch, Pgbench, Psql, Shell, Rsync, Timer)
FIRST_SEC = 3.0  # that an upgrade is taken to last, before one was seen
MORE = 2  # things that each load does between two upgrades, at least
QUIET = frozenset({"closed", "client_reset"})  # reasons of flows that nothing has happened to


@dataclass
class Seen:
    """Of one case. Times in seconds."""

    case: Case
    upgrades: int = 0
    loads: dict[str, Load] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    flows: int = 0  # passed from process to process, over all upgrades
    pause: float = 0.0  # the longest of a flow, as hubs tell it
    otherwise: Counter[str] = field(default_factory=Counter)  # how flows ended, by the hubs' logs, if not by their ends
    lasted: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.lost and self.upgrades > 0


async def play(
    case: Case,
    services: Services,
    directory: Path,
    size: Size,
    number: int,
    tell: Callable[[str], None] = lambda line: None,
    prepare: Callable[[Site], None] = lambda made: None,
) -> Seen:
    """So many upgrades under all loads; whatever goes wrong is in what was seen."""
    directory.mkdir()
    seen, began = Seen(case), time.monotonic()
    try:
        made = await asyncio.to_thread(site, directory, services.addresses, case)
    except AssertionError as error:
        seen.lost.append(f"not started: {str(error)[:1000]}")
        return seen
    try:
        prepare(made)
        ground = Ground(made.entrance, services, directory, size, asyncio.Event())
        await _under_load(made, ground, seen, number, tell)
        if case.upgraded != "nothing":
            _accounts(made, seen)
        await asyncio.to_thread(made.check)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        seen.lost.append(str(error)[:1000])
    finally:
        await asyncio.to_thread(made.close)
    seen.lasted = time.monotonic() - began
    return seen


async def _under_load(made: Site, ground: Ground, seen: Seen, number: int, tell: Callable[[str], None]) -> None:
    transfer = Transfer(ground)
    loads = [transfer, *(kind(ground) for kind in LOADS[1:])]
    seen.loads = {load.name: load for load in loads}
    running = [asyncio.create_task(load.keep()) for load in loads]
    began = time.monotonic()
    try:
        await _go_on(loads)
        for done in range(number):
            mean = (time.monotonic() - began) / done if done else FIRST_SEC
            transfer.pace(1.2 * mean * (number - done))  # so that bytes are left for the last one
            if seen.case.upgraded == "nothing":
                await asyncio.sleep(FIRST_SEC)
            else:
                await asyncio.to_thread(made.upgrade, seen.case.upgraded, done)
            seen.upgrades += 1
            await _go_on(loads)
        tell(f"  {number} in {time.monotonic() - began:.0f} s")
    finally:
        ground.over.set()
        await asyncio.wait(running)
        for load in loads:
            seen.lost += load.lost


async def _go_on(loads: list[Load]) -> None:
    """Until each load has done more, or cannot any longer."""
    goals = {load: load.done + MORE for load in loads if load.steady}
    await until(
        lambda: all(load.lost or load.done >= goal for load, goal in goals.items()),
        lambda: f"more done by {[load.name for load, goal in goals.items() if load.done < goal]}",
    )


def _accounts(made: Site, seen: Seen) -> None:
    """What hubs and the agent have logged: upgrades that were done, and flows that ended well."""
    agent = seen.case.upgraded == "agent"
    logs = [made.agent.log] if agent else [hub.log for hub in made.every_hub()]
    done = [event for log in logs for event in log.events("upgrade_done")]
    assert len(done) == seen.upgrades and all(event["result"] == "done" for event in done), done
    seen.flows = sum(event["passed"] for event in done)
    seen.pause = max(event.get("longest_pause_sec", 0.0) for event in done)
    for hub in made.every_hub():
        seen.otherwise.update(line["reason"] for line in hub.log.events(ACCESS) if line["reason"] not in QUIET)
