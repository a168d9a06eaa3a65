"""Clients that speak to the scripted service, and check each byte both ways.

Each kind is a coroutine that does one thing through one hub; `Kind` says how many do so side by side, and how long they
pause in between. The load is modest by design: what is soaked is time and faults, not speed.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from support.peer import connect, order_line
from support.script import RESET, End, Gates, Outcome, Step, pattern

from .installation import Installation
from .ledger import LIMIT_SEC, CleanEnd, Corrupt, Ledger, Lost, Trial

MIB = 1 << 20
TURN = 64  # bytes of a question, and of its answer
LOOK_SEC = 0.1  # between two looks at the service's end


@dataclass(frozen=True)
class Run:
    """What clients stand on."""

    site: Installation
    ledger: Ledger
    random: random.Random
    until: float  # `time.monotonic` at which nothing new is begun

    def span(self, least: float, most: float) -> float:
        """Seconds drawn between two bounds, and not beyond the end."""
        return min(self.random.uniform(least, most), max(1.0, self.until - time.monotonic()))

    def somewhere(self) -> str:
        """A hub that clients may come to."""
        return self.random.choice(self.site.open_hubs())

    def scripted(self) -> str:
        """A connector of the scripted service: of two agents, or of one alone."""
        return self.random.choice(("peer", "solo"))


Client = Callable[[Run], Awaitable[None]]


@dataclass(frozen=True)
class Kind:
    """``count`` clients side by side, each with a pause of up to ``pause`` seconds between two of its trials."""

    client: Client
    count: int
    pause: float


async def open_socket(run: Run, trial: Trial) -> socket.socket:
    """A connection to the trial's listener."""
    sock = await connect(run.site.cluster.address(trial.hub, trial.connector))
    trial.source = "%s:%d" % sock.getsockname()
    return sock


async def service_end(run: Run, seed: int) -> Outcome:
    """What the service saw, once its end is over."""
    while True:
        seen = await asyncio.to_thread(run.site.peer.outcome, seed)
        if seen and (seen.finished or seen.error):
            return seen
        await asyncio.sleep(LOOK_SEC)


def whole(end: Outcome, length: int, whose: str) -> None:
    """Raise unless an end has received so many right bytes, and then the other's end."""
    if end.first_bad is not None:
        raise Corrupt(f"{whose} has a wrong byte at {end.first_bad}: {end}")
    # a reset is told once: where a write has heard of it, a read beside it sees an end
    if end.error == "EOF" or (end.eof and not end.error and end.received < length):
        raise CleanEnd(f"{whose} has a clean end after {end.received} of {length} bytes")
    if end.error:
        raise Lost(f"{whose} has {end.error} after {end.received} of {length} bytes")
    if end.received != length:
        raise Corrupt(f"{whose} has {end.received} bytes instead of {length}")


async def exchange(
    run: Run,
    kind: str,
    *,
    client: list[Step],
    service: list[Step],
    up: int,
    down: int,
    seconds: float = 0,
    receive_buffer: int | None = None,
) -> None:
    """One flow with a script at each end: ``up`` bytes go to the service, ``down`` to the client, in some ``seconds``
    of its own."""
    async with run.ledger.trial(kind, run.somewhere(), run.scripted(), seconds + LIMIT_SEC) as trial:
        seed = run.site.peer.next_seed()

        def progress(outcome: Outcome) -> None:
            trial.received = outcome.received

        sock = await open_socket(run, trial)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        end = End(sock, send_seed=2 * seed, receive_seed=2 * seed + 1, gates=Gates(), on_progress=progress)
        try:
            await asyncio.get_running_loop().sock_sendall(
                sock, order_line(seed, service, receive_buffer=receive_buffer or 0)
            )
            whole(await end.run(client), down, "the client")
        finally:
            sock.close()
        whole(await service_end(run, seed), up, "the service")


async def short(run: Run) -> None:
    """Connect, one exchange, close: an LDAP client without a pool."""
    await exchange(
        run, "short", client=[["send", 64], ["drain"]], service=[["read", 64], ["send", 700]], up=64, down=700
    )


async def stream(run: Run) -> None:
    """Both ways at once, at a moderate rate."""
    rate = run.random.choice((100_000, 300_000))
    seconds = run.span(5, 30)
    size = int(rate * seconds)
    script: list[Step] = [["both", [["send", size, rate], ["fin"]], [["drain"]]]]
    await exchange(run, "stream", client=script, service=script, up=size, down=size, seconds=seconds)


async def bulk(run: Run) -> None:
    """Megabytes as fast as they go, up or down."""
    size = run.random.randrange(4, 16) * MIB
    send: list[Step] = [["send", size], ["fin"]]
    if run.random.random() < 0.5:
        await exchange(run, "bulk up", client=[*send, ["drain"]], service=[["drain"]], up=size, down=0)
    else:
        await exchange(run, "bulk down", client=[["drain"]], service=send, up=0, down=size)


async def half_closed(run: Run) -> None:
    """One side ends, and the other goes on for some seconds."""
    rate, seconds = 100_000, run.span(2, 10)
    size = int(rate * seconds)
    first: list[Step] = [["send", 1000], ["fin"], ["drain"]]
    second: list[Step] = [["drain"], ["send", size, rate], ["fin"]]
    if run.random.random() < 0.5:
        await exchange(run, "half-close", client=first, service=second, up=1000, down=size, seconds=seconds)
    else:
        await exchange(run, "half-close", client=second, service=first, up=size, down=1000, seconds=seconds)


async def idle(run: Run) -> None:
    """A word, silence, another word."""
    silence = ["pause", run.span(10, 60)]
    await exchange(
        run,
        "idle",
        client=[["send", 10], ["read", 10], silence, ["send", 10], ["read", 10], ["fin"], ["drain"]],
        service=[["read", 10], ["send", 10], ["read", 10], ["send", 10], ["fin"], ["drain"]],
        up=20,
        down=20,
        seconds=silence[1],
    )


async def pausing(run: Run) -> None:
    """Megabytes for a client, or a service, that does not read for a while."""
    size, silence = 4 * MIB, ["pause", run.span(5, 45)]
    send: list[Step] = [["send", size], ["fin"]]
    read: list[Step] = [["read", 1000], silence, ["drain"]]
    options = {"seconds": silence[1], "receive_buffer": 65536}
    if run.random.random() < 0.5:
        await exchange(run, "pausing client", client=read, service=send, up=0, down=size, **options)
    else:
        await exchange(run, "pausing service", client=[*send, ["drain"]], service=read, up=size, down=0, **options)


async def conversation(run: Run) -> None:
    """Question and answer, turn by turn: whose answer takes long tells of a standstill."""
    loop = asyncio.get_running_loop()
    seconds = run.span(10, 60)
    async with run.ledger.trial("conversation", run.somewhere(), run.scripted(), seconds + LIMIT_SEC) as trial:
        seed = run.site.peer.next_seed()
        with await open_socket(run, trial) as sock:
            await loop.sock_sendall(sock, order_line(seed, [["echo"], ["fin"]]))
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                question = pattern(2 * seed, trial.received, TURN)
                asked = time.monotonic()
                await loop.sock_sendall(sock, question)
                answer = b""
                while len(answer) < TURN:
                    more = await loop.sock_recv(sock, TURN - len(answer))
                    if not more:
                        raise CleanEnd(f"a clean end in the middle of the conversation, after {trial.received} bytes")
                    answer += more
                if answer != question:
                    raise Corrupt(f"a wrong answer at {trial.received}")
                trial.received += TURN
                run.ledger.turn(trial.hub, asked, time.monotonic())
                await asyncio.sleep(0.1)
            sock.shutdown(socket.SHUT_WR)
            if await loop.sock_recv(sock, 1):
                raise Corrupt("bytes after the last answer")
        whole(await service_end(run, seed), trial.received, "the service")


async def resetting(run: Run) -> None:
    """A client, or a service, that resets: the other end sees a reset, never a clean end."""
    loop = asyncio.get_running_loop()
    client_resets = run.random.random() < 0.5
    kind = "reset by client" if client_resets else "reset by service"
    async with run.ledger.trial(kind, run.somewhere(), run.scripted(), LIMIT_SEC) as trial:
        seed = run.site.peer.next_seed()
        script: list[Step] = [["send", 1], ["drain"]] if client_resets else [["send", 100_000], ["rst"]]
        with await open_socket(run, trial) as sock:
            await loop.sock_sendall(sock, order_line(seed, script))
            if client_resets:
                if not await loop.sock_recv(sock, 1):
                    raise CleanEnd("a clean end instead of the first byte")
                trial.received = 1
                await loop.sock_sendall(sock, pattern(2 * seed, 0, 50_000))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            else:
                await _read_until_reset(sock, trial, seed)
        if client_resets:
            end = await service_end(run, seed)
            if end.error != "ECONNRESET":
                raise CleanEnd(f"the service saw no reset: {end}")


async def _read_until_reset(sock: socket.socket, trial: Trial, seed: int) -> None:
    try:
        while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
            if data != pattern(2 * seed + 1, trial.received, len(data)):
                raise Corrupt(f"a wrong byte after {trial.received}")
            trial.received += len(data)
    except ConnectionResetError:
        return
    raise CleanEnd(f"a clean end after {trial.received} bytes of a service that has reset")


SCRIPTED = (
    Kind(conversation, 6, 0.5),
    Kind(stream, 3, 1),
    Kind(short, 2, 0.5),
    Kind(bulk, 1, 2),
    Kind(half_closed, 1, 1),
    Kind(idle, 8, 1),
    Kind(pausing, 3, 1),
    Kind(resetting, 1, 1),
)


async def keep(run: Run, kind: Kind) -> None:
    """One client of the kind, until the end."""
    await asyncio.sleep(run.random.uniform(0, 1))
    while time.monotonic() < run.until:
        await kind.client(run)
        await asyncio.sleep(run.random.uniform(0, kind.pause))
