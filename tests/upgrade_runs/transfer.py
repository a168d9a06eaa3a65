"""A transfer each way at once over one connection, which lasts until the last upgrade is over."""

from __future__ import annotations

import asyncio
import time

from support.peer import byte_exact, run_flow
from support.script import Gates, Outcome, Step, pattern_sha256
from support.until import SCENARIO_SEC

from .load import MIB, Ground, Load

PIECE = 128 << 10  # bytes each way that are let go at once
HOURS_SEC = 10 * SCENARIO_SEC


class Transfer(Load):
    """`done` counts bytes that the client has received."""

    name = "transfer"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._pieces = ground.size.transfer // PIECE
        self._let_go = 0
        self._beat = 0.0
        self._last = 0.0
        self.pace(60)

    @property
    def amount(self) -> str:
        return f"{self.done / MIB:,.0f} MiB each way"

    def pace(self, seconds: float) -> None:
        """What is left is to last so long."""
        self._beat = seconds / max(1, self._pieces - self._let_go)

    async def run(self) -> None:
        peer, size = self.ground.services.peer, self._pieces * PIECE
        seed, gates = peer.next_seed(), Gates()
        sending: list[Step] = [
            step for number in range(self._pieces) for step in (["wait", f"{seed}.{number}"], ["send", PIECE])
        ]
        script = [["both", [*sending, ["fin"]], [["drain"]]]]
        letting = asyncio.create_task(self._let(gates, seed))
        try:
            both = await run_flow(
                peer,
                self.ground.address("peer"),
                seed=seed,
                client=script,
                service=script,
                digest=True,
                gates=gates,
                on_progress=self._progress,
                timeout=HOURS_SEC,
            )
        finally:
            letting.cancel()
        for end, sent in ((both.service, 2 * seed), (both.client, 2 * seed + 1)):
            assert end.error is None and end.eof, both
            byte_exact(end, size)
            assert end.sha256 == await asyncio.to_thread(pattern_sha256, sent, size), "another SHA-256"

    async def _let(self, gates: Gates, seed: int) -> None:
        for number in range(self._pieces):
            gates[f"{seed}.{number}"].set()
            await asyncio.to_thread(self.ground.services.peer.open_gate, f"{seed}.{number}")
            self._let_go += 1
            if not self.ground.over.is_set():
                await asyncio.sleep(self._beat)

    def _progress(self, outcome: Outcome) -> None:
        now = time.monotonic()
        if self._last and not self.ground.over.is_set():
            self.longest = max(self.longest, now - self._last)
        self._last, self.done = now, outcome.received
