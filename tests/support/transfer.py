"""Large transfers that run while a test breaks things, in threads of their own."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

from support.peer import Address, Both, Peer, byte_exact, run_flow
from support.process import wait_until
from support.script import Gates, Outcome, pattern_sha256

MIB = 1 << 20
SIZE = 64 * MIB
WITHHELD = 16 * MIB  # sent after `release`, so that a transfer cannot be over before its fault has had effect
UNDER_WAY = 4 * MIB  # received at both ends before a test goes on
TIMEOUT = 100


class Transfer:
    """One flow with ``size`` bytes each way at once; leaving the context releases the rest and fails unless both
    ends saw every byte, and no other."""

    def __init__(self, peer: Peer, address: Address, name: str = "", size: int = SIZE) -> None:
        self.name = name
        self.size = size
        self._peer, self._address = peer, address
        self._seed = peer.next_seed()
        self._gate = f"rest {self._seed}"
        self._gates = Gates()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Outcome | None = None
        self._both: Both | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"transfer {name}")

    def _run(self) -> None:
        try:
            self._both = asyncio.run(self._flow())
        except BaseException as error:
            self._failure = error

    async def _flow(self) -> Both:
        self._loop = asyncio.get_running_loop()
        sending = [["send", self.size - WITHHELD], ["wait", self._gate], ["send", WITHHELD], ["fin"]]
        script = [["both", sending, [["drain"]]]]
        return await run_flow(
            self._peer, self._address, seed=self._seed, client=script, service=script, digest=True,
            gates=self._gates, on_progress=self._progress, timeout=TIMEOUT,
        )

    def _progress(self, outcome: Outcome) -> None:
        self._client = outcome

    def received(self) -> tuple[int, int]:
        """Bytes that have arrived at the client, and at the service."""
        if self._failure:
            raise AssertionError(f"transfer {self.name} failed: {self._failure!r}") from self._failure
        service = self._peer.outcome(self._seed)
        return self._client.received if self._client else 0, service.received if service else 0

    def wait_under_way(self, more: int = UNDER_WAY) -> None:
        """Until so many more bytes have arrived at both ends."""
        start = self.received()
        wait_until(
            lambda: all(now >= then + more for now, then in zip(self.received(), start, strict=True)),
            f"transfer {self.name} moving {more} bytes each way from {start}",
        )

    def wait_withheld(self, timeout: float = 60) -> None:
        """Until all has arrived but what is kept back."""
        wait_until(
            lambda: min(self.received()) >= self.size - WITHHELD, f"all but the rest of transfer {self.name}", timeout
        )

    def both_moving(self) -> bool:
        """Whether neither direction has got to the part that is kept back."""
        return max(self.received()) < self.size - WITHHELD

    def release(self) -> None:
        """Let the kept back part go."""
        self._peer.open_gate(self._gate)
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._gates[self._gate].set)

    def ended(self) -> Both:
        """What both ends saw, once the flow is over, however it ended."""
        self._thread.join(TIMEOUT + 10)
        assert not self._thread.is_alive(), f"transfer {self.name} hangs"
        if self._failure:
            raise AssertionError(f"transfer {self.name} failed: {self._failure!r}") from self._failure
        assert self._both
        return self._both

    def complete(self) -> None:
        """Release the rest; fail unless every byte arrived once and in order, and the flow ended in good order."""
        self.release()
        both = self.ended()
        for end, seed in ((both.service, 2 * self._seed), (both.client, 2 * self._seed + 1)):
            assert end.error is None and end.eof, f"transfer {self.name}: {both}"
            byte_exact(end, self.size)
            assert end.sha256 == pattern_sha256(seed, self.size), self.name

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.complete()
        else:
            self.release()  # the thread ends with its sockets: the cluster is closed by then, or by its timeout
