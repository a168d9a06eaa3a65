"""The one task that talks to Redis.

Callers put calls into a queue and await futures; the task sends what has gathered in one write and reads the replies in
order. It is never cancelled, so a caller that is cancelled leaves its reply to nobody, and never to another. What takes
longer than the timeout is thrown away together with its connection, and tried once more on a new one: scripts are made
for that. Then the breaker opens, everybody is told at once, and a probe goes out from time to time. While nothing is to
be done a pulse goes out, so that a server that has frozen is noticed before somebody needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ncfast.net.seam import Net
from ncfast.observe import log
from ncfast.observe.stats import Stats
from ncfast.registry.breaker import Breaker
from ncfast.registry.redis.backend import PING, Backend, BackendError, Call

_log = log.get("registry")

BATCH = 256  # calls in one write
QUEUE = 100_000  # calls that wait at most; a hub has fewer agents
PULSE = 0.25  # seconds without a call, after which a ping asks whether anybody is there


class Beats(Protocol):
    """Who says what goes out by itself."""

    def beat(self, anew: bool) -> Call:
        """The call that renews the lease and brings the news; `anew`: the first on a new connection."""

    def beaten(self, reply: Any, anew: bool) -> None:
        """Its reply. Raises ValueError if it is none."""

    def until_beat(self) -> float:
        """Seconds until the next beat should go out."""

    def away(self, reason: str) -> None:
        """The breaker has opened."""

    def back(self) -> None:
        """It has closed, after the reply to the beat."""


@dataclass(slots=True)
class _Work:
    call: Call
    future: asyncio.Future[Any]


class Courier:
    """`timeout` in seconds is for one attempt, connecting included."""

    def __init__(self, backend: Backend, net: Net, stats: Stats, timeout: float, beats: Beats) -> None:
        self.breaker = Breaker(net.clock, net.rng)
        self._backend = backend
        self._net = net
        self._stats = stats
        self._timeout = timeout
        self._beats = beats
        self._queue: deque[_Work] = deque()
        self._wake = asyncio.Event()
        self._pulse_at = 0.0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._net.spawn(self._serve(), "registry")

    async def stop(self, within: float) -> None:
        """Carries out what waits, for at most `within` seconds, and ends."""
        self._stopping = True
        self.kick()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=within)
            self._task.cancel()  # does nothing to one that has ended
            await asyncio.wait([self._task])
        self._refuse("stopped")
        self._backend.close()

    def submit(self, call: Call) -> asyncio.Future[Any]:
        """The future reply. Raises BackendError at once while the breaker is open."""
        if not self.breaker.closed or self._stopping or self._task is None:
            raise BackendError("away")
        if len(self._queue) >= QUEUE:
            raise BackendError("overloaded")
        work = _Work(call, self._net.loop.create_future())
        self._queue.append(work)
        self._wake.set()
        return work.future

    async def ask(self, call: Call) -> Any:
        """The reply. Raises BackendError."""
        return await self.submit(call)

    def kick(self) -> None:
        """Something looks wrong, or a beat is due earlier than it was: look now."""
        self._pulse_at = 0.0
        self._wake.set()

    # the task

    async def _serve(self) -> None:
        try:
            while not self._stopping or (self._queue and self.breaker.closed):
                if self.breaker.closed:
                    await self._wait(self._until_pulse)
                    await self._carry()
                else:
                    await self._wait(self._until_probe)
                    if self.breaker.probe():
                        await self._probe()
        finally:
            self._backend.close()

    def _until_pulse(self) -> float:
        return min(self._pulse_at - self._net.clock(), self._beats.until_beat())

    def _until_probe(self) -> float:
        return self.breaker.probe_at - self._net.clock()

    async def _wait(self, left: Callable[[], float]) -> None:
        """Until there is something to do, or `left()` seconds have passed, which may become fewer meanwhile."""
        while not self._queue and not self._stopping and (seconds := left()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _carry(self) -> None:
        """One batch, twice if need be."""
        batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        reason = ""
        for _ in range(2):
            batch = [work for work in batch if not work.future.done()]  # whose callers have given up
            try:
                replies = await self._attempt([work.call for work in batch])
            except BackendError as exc:
                reason = exc.reason
                continue
            for work, reply in zip(batch, replies, strict=True):
                _answer(work.future, reply)
            return
        for work in batch:
            _answer(work.future, BackendError(reason))
        self._lost(reason)

    async def _probe(self) -> None:
        """One attempt to see whether the server is back."""
        try:
            await self._attempt([])
        except BackendError as exc:
            self._lost(exc.reason)
        else:
            self._beats.back()

    async def _attempt(self, calls: list[Call]) -> list[Any]:
        """The replies. On a new connection a beat goes first, and whenever it is due. Raises BackendError, and then the
        connection is closed."""
        anew = not self._backend.connected
        started = self._net.clock()
        beat = anew or self._beats.until_beat() <= 0
        own = [self._beats.beat(anew)] if beat else [] if calls else [PING]
        try:
            async with bounded(self._net, self._timeout * (self._backend.patience if anew else 1.0)):
                if anew:
                    await self._backend.open()
                replies = await self._backend.run([*own, *calls])
            if beat:
                if isinstance(replies[0], BackendError):
                    raise replies[0]
                self.breaker.succeeded()  # what the reply makes necessary may be sent
                self._beats.beaten(replies[0], anew)
        except asyncio.CancelledError:  # the process ends
            self._backend.close()
            raise
        except Exception as exc:
            self._backend.close()
            reason = _reason(exc)
            self._stats.registry_errors[reason] += 1
            raise BackendError(reason) from None
        now = self._net.clock()
        self._stats.registry_commands += len(replies)
        self._stats.registry_latency.observe(now - started)
        self._pulse_at = now + PULSE
        return replies[len(own) :]

    def _lost(self, reason: str) -> None:
        self.breaker.failed()
        self._refuse(reason)
        self._beats.away(reason)

    def _refuse(self, reason: str) -> None:
        queue, self._queue = self._queue, deque()
        for work in queue:
            _answer(work.future, BackendError(reason))


@contextlib.asynccontextmanager
async def bounded(net: Net, seconds: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`, but a process that was busy or stopped does not blame the server for it: time counts in
    quarters, and one that comes late counts as one. What arrived meanwhile is read before the next has passed. Raises
    TimeoutError."""
    timer: Any = None

    def pass_quarter(left: int) -> None:
        nonlocal timer
        if left:
            timer = net.call_later(seconds / 4, pass_quarter, left - 1)
        else:
            limit.reschedule(net.clock())

    async with asyncio.timeout(None) as limit:
        pass_quarter(4)
        try:
            yield
        finally:
            timer.cancel()


def _reason(exc: Exception) -> str:
    if isinstance(exc, BackendError):
        return exc.reason
    if isinstance(exc, TimeoutError):
        return "timeout"
    if isinstance(exc, (ValueError, TypeError, IndexError)):
        return "garbled"
    _log.exception("registry_defect")  # of the client library, or ours: the next connection may do better
    return "internal"


def _answer(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():  # its caller was cancelled
        return
    if isinstance(reply, BackendError):
        future.set_exception(reply)
    else:
        future.set_result(reply)


def ignore(future: asyncio.Future[Any]) -> None:
    """For a future whose outcome nobody needs."""
    if not future.cancelled():
        future.exception()
