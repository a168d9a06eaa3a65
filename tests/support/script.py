"""Both ends of a test flow, told what to do by a short script.

A script is a list of steps, done in order:

=====================  ================================================================================
``["send", n]``        send the next ``n`` bytes of the sending pattern
``["send", n, rate]``  the same, at most so many bytes a second
``["fin"]``            shut down the sending side
``["read", n]``        receive exactly ``n`` bytes
``["drain"]``          receive until the other side's FIN
``["drain_slowly"]``   the same, in small reads that yield between each other
``["echo"]``           send back what is received until the other side's FIN
``["flushed"]``        wait until the kernel has had everything acknowledged
``["wait", gate]``     wait until the gate is opened
``["rst"]``            close with a reset
``["both", a, b]``     run the scripts ``a`` and ``b`` at the same time
=====================  ================================================================================

A flow's end closes its socket after its last step. Bytes are a pattern known to both ends by its seed, so
each end knows the offset of the first wrong byte; the SHA-256 is there for transfers that promise one.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import random
import socket
import struct
import termios
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

CHUNK = 256 * 1024
PERIOD = 1_000_003  # prime: no frame, window or page size divides it, so a lost or moved block shows
SPREAD = 618_041  # about PERIOD divided by the golden ratio: places far apart for all seeds
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close sends RST

Step = list[Any]


@cache
def _block() -> bytes:
    block = random.Random(20).randbytes(PERIOD)
    return block + block[:CHUNK]


def pattern(seed: int, offset: int, length: int) -> bytes:
    """``length`` (at most CHUNK) bytes of the endless pattern ``seed`` from ``offset``.

    All patterns are one random block read round and round from places far apart.
    """
    start = (seed * SPREAD + offset) % PERIOD
    return _block()[start : start + length]


def pattern_sha256(seed: int, length: int) -> str:
    """SHA-256 of the first ``length`` bytes of a pattern."""
    digest = hashlib.sha256()
    for offset in range(0, length, CHUNK):
        digest.update(pattern(seed, offset, min(CHUNK, length - offset)))
    return digest.hexdigest()


@dataclass
class Outcome:
    """What one end of a flow saw."""

    sent: int = 0
    received: int = 0
    sha256: str = ""
    first_bad: int | None = None  # offset of the first byte that is not the pattern's
    eof: bool = False
    error: str | None = None  # errno name of what ended it early
    finished: bool = False
    steps: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Gates:
    """Named one-way doors that steps wait at."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def __getitem__(self, name: str) -> asyncio.Event:
        return self._events.setdefault(name, asyncio.Event())


class End:
    """Runs a script on a connected non-blocking socket."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        send_seed: int,
        receive_seed: int,
        gates: Gates,
        digest: bool = False,
        surplus: bytes = b"",
        on_progress: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._sock = sock
        self._send_seed = send_seed
        self._receive_seed = receive_seed
        self._gates = gates
        self._surplus = surplus
        self._digest = hashlib.sha256() if digest else None
        self._on_progress = on_progress
        self._open = True
        self.outcome = Outcome()

    async def run(self, script: list[Step]) -> Outcome:
        """Do the steps, close the socket, and say what was seen."""
        try:
            await self._steps(script)
            self.outcome.finished = True
        except OSError as error:
            self.outcome.error = errno.errorcode.get(error.errno or 0, repr(error))
        except EOFError:
            self.outcome.error = "EOF"
        finally:
            self._sock.close()
            if self._digest:
                self.outcome.sha256 = self._digest.hexdigest()
        return self.outcome

    async def _steps(self, script: list[Step]) -> None:
        for name, *arguments in script:
            await getattr(self, f"_step_{name}")(*arguments)
            self.outcome.steps.append(name)

    async def _receive(self, limit: int) -> bytes:
        if self._surplus:
            data, self._surplus = self._surplus[:limit], self._surplus[limit:]
        else:
            data = await asyncio.get_running_loop().sock_recv(self._sock, limit)
        out = self.outcome
        if not data:
            out.eof = True
        elif out.first_bad is None:
            expected = pattern(self._receive_seed, out.received, len(data))
            if data != expected:
                pairs = zip(data, expected, strict=True)
                wrong = next(i for i, (got, want) in enumerate(pairs) if got != want)
                out.first_bad = out.received + wrong
        out.received += len(data)
        if self._digest:
            self._digest.update(data)
        if self._on_progress:
            self._on_progress(out)
        return data

    async def _step_send(self, length: int, rate: float = 0) -> None:
        loop = asyncio.get_running_loop()
        end = self.outcome.sent + length
        while self.outcome.sent < end:
            size = min(CHUNK, end - self.outcome.sent)
            await loop.sock_sendall(self._sock, pattern(self._send_seed, self.outcome.sent, size))
            self.outcome.sent += size
            if rate:
                await asyncio.sleep(size / rate)

    async def _step_fin(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    async def _step_read(self, length: int) -> None:
        end = self.outcome.received + length
        while self.outcome.received < end:
            if not await self._receive(min(CHUNK, end - self.outcome.received)):
                raise EOFError

    async def _step_drain(self) -> None:
        while await self._receive(CHUNK):
            pass

    async def _step_drain_slowly(self) -> None:
        while await self._receive(4096):
            await asyncio.sleep(0)

    async def _step_echo(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await self._receive(CHUNK):
            await loop.sock_sendall(self._sock, data)
            self.outcome.sent += len(data)

    async def _step_flushed(self) -> None:
        unsent = bytearray(4)
        while True:
            fcntl.ioctl(self._sock, termios.TIOCOUTQ, unsent)
            if not any(unsent):
                return
            await asyncio.sleep(0.002)

    async def _step_wait(self, gate: str) -> None:
        await self._gates[gate].wait()

    async def _step_pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _step_rst(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._sock.close()

    async def _step_both(self, first: list[Step], second: list[Step]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for script in (first, second):
                    group.create_task(self._steps(script))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
