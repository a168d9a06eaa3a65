"""`python -m tests.soak`: soaks a cluster for so many minutes, and reports. Exit code 1 on any failure."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.longrun import add_report, folder, tell
from support.process import open_many

from . import accounts
from .clients import SCRIPTED, Kind, Run, keep
from .faults import Faults
from .installation import TOKEN_SEC, Installation
from .ldap_load import LDAP
from .ledger import Ledger, Logs
from .programs import POSTGRES, PROGRAMS
from .report import Outcome, render
from .samples import WARM_UP_SEC, Sampler, check_flat

SAMPLES = 60  # in a short soak
INTERVAL_SEC = 10.0  # between two, in a long one
THREADS = 64  # that wait for what blocks; nearly all of them sleep
TELL_SEC = 30.0  # between two lines of progress


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, metavar="N", help="how long clients come (60)")
    parser.add_argument("--seed", type=int, metavar="N", help="of faults and clients (drawn)")
    parser.add_argument("--faults", metavar="KIND,…", help="only these; a wrong name lists all")
    add_report(parser, "where the report goes (standard output)")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    only = arguments.faults.split(",") if arguments.faults else None
    open_many()
    try:
        with folder(arguments.keep, "soak-") as directory:
            outcome = asyncio.run(soak(directory, arguments.minutes * 60, seed, only))
    except pytest.skip.Exception as missing:
        sys.exit(f"cannot soak: {missing}")
    text = render(outcome)
    if arguments.report:
        arguments.report.write_text(text)
        print(text.partition("\n## ")[0].rstrip())
    else:
        print(text)
    return 0 if outcome.passed else 1


async def soak(directory: Path, seconds: float, seed: int, only: list[str] | None) -> Outcome:
    """Everything, from the start of the first process to the end of the last; Ctrl-C breaks it off in good order."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)  # as often as it comes: nobody is left behind
    tell(f"seed {seed}: starting")
    with Installation(directory) as site:
        idle = accounts.idle_files(site)
        logs = Logs(site.log_paths)
        ledger = Ledger(logs)
        interval = min(INTERVAL_SEC, seconds / SAMPLES)
        warm_up = min(WARM_UP_SEC, seconds / 5)
        sampler = Sampler(site, interval)
        faults = Faults(site, ledger, seed, only)
        found: dict[str, dict[str, float]] = {}
        broken_off = False
        issuer = asyncio.create_task(_renew_tokens(site))
        try:
            await _under_load(site, ledger, sampler, faults, seconds, seed)
            tell("no clients any more: the accounts")
            found = await asyncio.to_thread(accounts.check, site, ledger, logs, idle)
            check_flat(sampler.lives.values(), ledger, warm_up)
        except asyncio.CancelledError:
            broken_off = True
            tell("broken off: ending all processes")
        finally:
            issuer.cancel()
            await asyncio.wait([issuer])
        lasted = time.monotonic() - ledger.began
        return Outcome(lasted, seed, ledger, list(sampler.lives.values()), warm_up, interval, found, broken_off)


async def _under_load(
    site: Installation, ledger: Ledger, sampler: Sampler, faults: Faults, seconds: float, seed: int
) -> None:
    """Clients and faults, until both have come to their end."""
    until = time.monotonic() + seconds
    kinds: tuple[Kind, ...] = (*SCRIPTED, *PROGRAMS, *LDAP, *(POSTGRES if "postgres" in site.connectors else ()))
    clients: list[Coroutine[None, None, None]] = []
    for kind in kinds:
        for number in range(kind.count):
            draws = random.Random(f"{seed} {kind.client.__name__} {number}")
            clients.append(keep(Run(site, ledger, draws, until), kind))
    beside = [asyncio.create_task(sampler.run(until)), asyncio.create_task(_tell_progress(ledger))]
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_guarded(faults, ledger, until))
            for client in clients:
                group.create_task(client)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)


async def _guarded(faults: Faults, ledger: Ledger, until: float) -> None:
    """Faults; a cluster that does not come to rest after one is a failure, and the end of the faults."""
    try:
        await faults.run(until)
    except AssertionError as error:
        ledger.fail(f"after {ledger.faults[-1].kind} at {ledger.faults[-1].target}: {str(error)[:1000]}")


async def _renew_tokens(site: Installation) -> None:
    while True:
        await asyncio.to_thread(site.renew_tokens)
        await asyncio.sleep(TOKEN_SEC / 5)


async def _tell_progress(ledger: Ledger) -> None:
    told = 0
    while True:
        await asyncio.sleep(TELL_SEC)
        for failure in ledger.failures[told:]:
            told += 1
            tell(f"{failure.at:.0f} s: {failure.what}")
        tell(
            f"{time.monotonic() - ledger.began:.0f} s: {sum(ledger.done.values())} done, "
            f"{sum(ledger.lost.values())} lost as announced, {sum(ledger.failed.values())} failed, "
            f"{sum(ledger.open.values())} open, {len(ledger.faults)} faults"
        )


if __name__ == "__main__":
    sys.exit(main())
