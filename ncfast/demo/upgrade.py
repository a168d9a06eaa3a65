"""The demo of upgrades: a hub and an agent are replaced by new processes, in turn, while checksummed transfers follow
one another and small flows talk.

The processes, and what happens around them, are those of the other demo; nothing cuts the tunnel here.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TextIO

from ncfast.core.errors import NcfastError
from ncfast.demo import stage
from ncfast.demo.clients import Transfer
from ncfast.demo.scenario import Demo
from ncfast.demo.stage import address
from ncfast.demo.view import MIB, progress, talk, verdict

EACH = 5  # upgrades of the hub, and of the agent


class UpgradeDemo(Demo):
    """One run. Each transfer moves `megabytes`; another begins when it is over, until the last upgrade is done."""

    options = ("--stay-parent",)
    deadline_sec = 180.0  # some half a minute is usual

    def __init__(self, out: TextIO, *, megabytes: int) -> None:
        super().__init__(out, megabytes=megabytes, cuts=2 * EACH)
        self._done: list[Transfer] = []
        self._seed = len(self._transfers)

    async def _work(self) -> None:
        upgrades = asyncio.create_task(self._upgrade_all())
        try:
            while not upgrades.done():
                async with asyncio.TaskGroup() as both:
                    for transfer in self._transfers:
                        both.create_task(transfer.run(address(self._clients_at)))
                self._done += self._transfers
                self._transfers = [self._another(transfer) for transfer in self._transfers]
            await upgrades
        finally:
            upgrades.cancel()

    def _another(self, transfer: Transfer) -> Transfer:
        self._seed += 1
        return Transfer(transfer.direction, transfer.size, self._seed)

    async def _upgrade_all(self) -> None:
        for number in range(self._cuts):
            child = (self._hub, self._agent)[number % 2]
            before, failed = child.count("upgraded"), child.count("upgrade_failed")
            since = time.monotonic()
            child.signal(signal.SIGUSR2)
            ended = asyncio.ensure_future(child.event("upgrade_failed", failed + 1))
            done = asyncio.ensure_future(child.event("upgraded", before + 1))
            await asyncio.wait((ended, done), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if not done.done():
                done.cancel()
                raise NcfastError(f"the {child.name} was not upgraded: {(await ended)['reason']}")
            self._outages.append(time.monotonic() - since)
            self._view.event(f"the {child.name} is process {done.result()['pid']} now ({self._outages[-1]:.1f} s)")

    def _block(self) -> list[str]:
        upgrades = f"  {len(self._outages)} of {self._cuts} upgrades, {len(self._done)} transfers checked"
        return ["", *map(progress, self._transfers), talk(self._conversations), upgrades]

    def _summary(self) -> bool:
        whole = (
            bool(self._done)
            and all(transfer.intact for transfer in self._done)
            and not self._conversations.faults
            and len(self._outages) == self._cuts
        )
        wrong = [verdict(transfer) for transfer in self._done if not transfer.intact]
        moved = sum(transfer.moved for transfer in self._done) // MIB
        for line in (
            "",
            f"  {len(self._done)} transfers, {moved} MiB, {len(wrong)} of them not intact",
            *wrong,
            talk(self._conversations),
            *self._conversations.faults,
            f"  {len(self._outages)} upgrades",
            "Nothing was lost, repeated or reordered." if whole else "FAILED: see above.",
        ):
            self._view.line(line)
        return whole


async def run(out: TextIO, *, megabytes: int, stay: bool) -> bool:
    """As `stage.perform`."""
    return await stage.perform(UpgradeDemo(out, megabytes=megabytes), stay=stay)
