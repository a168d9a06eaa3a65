"""Large transfers that run while a test breaks things, in threads of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Self

from support.peer import Address, Both, Peer, byte_exact, run_flow
from support.script import Gates, Outcome, Step, pattern_sha256
from support.until import PATIENCE, wait_until

MIB = 1 << 20
SIZE = 64 * MIB
RATE = 64 * MIB  # bytes a second of the part that a fault shall meet: it lasts long enough for `ip` to be started
TIMEOUT = 2 * PATIENCE


class Transfer:
    """One flow with ``size`` bytes each way at once; leaving the context releases the rest and fails unless both
    ends saw every byte, and no other.

    The bytes go in three parts: an eighth at once; most of them after `surge`, which a test calls right before its
    fault, so that the fault meets bytes on their way in both directions; and a quarter after `release`, so that the
    transfer cannot be over before the fault has had its effect.
    """

    def __init__(self, peer: Peer, address: Address, name: str = "", size: int = SIZE) -> None:
        self.name = name
        self.size = size
        self.first = size // 8
        self.withheld = size // 4
        self._peer, self._address = peer, address
        self._seed = peer.next_seed()
        self._surge, self._rest = f"surge {self._seed}", f"rest {self._seed}"
        self._gates = Gates()
        self._opened: list[str] = []  # also before the loop runs
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
        for gate in self._opened:
            self._gates[gate].set()
        script = [["both", [*self._sending(), ["fin"]], [["drain"]]]]
        return await run_flow(
            self._peer,
            self._address,
            seed=self._seed,
            client=script,
            service=script,
            digest=True,
            gates=self._gates,
            on_progress=self._progress,
            timeout=TIMEOUT,
        )

    def _sending(self) -> list[Step]:
        most = self.size - self.first - self.withheld
        return [
            ["send", self.first],
            ["wait", self._surge],
            ["send", most, RATE],
            ["wait", self._rest],
            ["send", self.withheld],
        ]

    def _progress(self, outcome: Outcome) -> None:
        self._client = outcome

    def received(self) -> tuple[int, int]:
        """Bytes that have arrived at the client, and at the service."""
        if self._failure:
            raise AssertionError(f"transfer {self.name} failed: {self._failure!r}") from self._failure
        service = self._peer.outcome(self._seed)
        return self._client.received if self._client else 0, service.received if service else 0

    def wait_under_way(self) -> None:
        """Until the first part has arrived at both ends."""
        wait_until(lambda: min(self.received()) >= self.first, f"the first bytes of transfer {self.name}")

    def surge(self) -> None:
        """Let the second part go; a fault that follows at once meets it in both directions."""
        self._open(self._surge)

    def both_moving(self) -> bool:
        """Whether neither direction has got to the part that is kept back."""
        return max(self.received()) < self.size - self.withheld

    def wait_moved(self, more: int) -> None:
        """Until so many more bytes have arrived at both ends, or all but the part that is kept back."""
        self.surge()  # the first part may have arrived already
        goal = min(self.size - self.withheld, max(self.received()) + more)
        wait_until(lambda: min(self.received()) >= goal, f"transfer {self.name} moving {more} bytes each way")

    def wait_withheld(self) -> None:
        """Until all has arrived but what is kept back."""
        self.surge()
        wait_until(
            lambda: min(self.received()) >= self.size - self.withheld,
            f"all but the rest of transfer {self.name}",
        )

    def release(self) -> None:
        """Let everything go."""
        self._open(self._surge)
        self._open(self._rest)

    def _open(self, gate: str) -> None:
        self._opened.append(gate)
        self._peer.open_gate(gate)
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._gates[gate].set)

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


def strike(fault: Callable[..., object], *transfers: Transfer) -> None:
    """Let the fault happen while bytes of all these transfers are on their way in both directions."""
    for transfer in transfers:
        transfer.wait_under_way()
    for transfer in transfers:
        transfer.surge()
    fault()
    for transfer in transfers:
        assert transfer.both_moving(), f"transfer {transfer.name} was too quick for the fault: {transfer.received()}"
