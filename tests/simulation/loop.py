"""Time and turns: one virtual clock, and an event loop for each simulated process.

The world holds every event of every process and of the network in one queue, and fires the earliest. A process runs
when its loop has something to do, a turn at a time, up to `TURN_DELAY` after it became ready: so two processes that are
woken at the same instant run in an order that the seed draws. Within a turn the clock stands still.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import inspect
import random
from collections import deque
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Any

TURN_DELAY = 100e-6  # seconds between becoming ready and running, at most; about what a busy process takes for a turn


class Event:
    """Something that the world will do. `cancel` may be called at any time."""

    __slots__ = ("arguments", "callback")

    def __init__(self, callback: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.arguments = arguments

    def cancel(self) -> None:
        self.callback = None


class World:
    """The clock, the queue, and one source of randomness."""

    def __init__(self, seed: int, show: Callable[[str], None] | None = None) -> None:
        self.now = 1000.0
        self.rng = random.Random(seed)
        self.steps = 0
        self.current: Loop | None = None  # whose turn it is
        self.problems: list[str] = []
        self._queue: list[tuple[float, int, Event]] = []
        self._number = 0
        self._digest = blake2b(digest_size=16)
        self._show = show

    def at(self, when: float, callback: Callable[..., Any], *arguments: Any) -> Event:
        event = Event(callback, arguments)
        self._number += 1
        heapq.heappush(self._queue, (max(when, self.now), self._number, event))
        return event

    def after(self, delay: float, callback: Callable[..., Any], *arguments: Any) -> Event:
        return self.at(self.now + delay, callback, *arguments)

    def run(self, until: float) -> None:
        """Fires events up to the time `until`."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, event = heapq.heappop(queue)
            if event.callback is not None:
                self.steps += 1
                event.callback(*event.arguments)
        self.now = max(self.now, until)

    def note(self, text: str) -> None:
        """A line of the trace: shown if somebody looks on, and part of the fingerprint always."""
        self._digest.update(f"{self.now:.9f} {text}\n".encode())
        if self._show is not None:
            self._show(f"{self.now - 1000.0:11.6f}  {text}")

    def problem(self, text: str) -> None:
        """A broken promise."""
        self.note(f"PROBLEM {text}")
        self.problems.append(f"at {self.now - 1000.0:.6f}: {text}")

    @property
    def fingerprint(self) -> str:
        """The same for the same seed and code, and for nothing else."""
        return self._digest.hexdigest()


class Handle:
    """A callback in a loop's queue; what asyncio's Handle is, as far as its callers look."""

    __slots__ = ("arguments", "callback", "context")

    def __init__(
        self, callback: Callable[..., Any], arguments: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.arguments = arguments
        self.context = context

    def cancel(self) -> None:
        self.callback = None

    def cancelled(self) -> bool:
        return self.callback is None


class Timer(Handle):
    __slots__ = ("_loop", "_when")

    def __init__(
        self,
        loop: Loop,
        when: float,
        callback: Callable[..., Any],
        arguments: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        super().__init__(callback, arguments, context)
        self._loop = loop
        self._when = when

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.callback = None
        self._loop.timers.pop(self, None)


class Watch:
    """A loop's interest in a descriptor that is `ready`, or will be: as long as it is, `callback` is called once a turn
    (libuv's watchers go by levels)."""

    def __init__(
        self,
        loop: Loop,
        watches: dict[Watch, None],
        ready: Callable[[], bool],
        callback: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        self._loop = loop
        self._watches = watches
        self._ready = ready
        self._callback = callback
        self._arguments = arguments
        self._scheduled = False
        self._over = False
        watches[self] = None
        self.look()

    def look(self) -> None:
        if not self._scheduled and not self._over and self._ready():
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        if not self._over and self._ready():
            self._callback(*self._arguments)
            self.look()

    def end(self) -> None:
        self._over = True
        self._watches.pop(self, None)


class Loop(asyncio.AbstractEventLoop):
    """One process's event loop, driven by the world. It offers what ncfast uses, and raises NotImplementedError for the
    rest.

    While frozen (SIGSTOP) it does not run; timers and sockets that become due wait. When dead (SIGKILL) it never runs
    again.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.frozen = False
        self.dead = False
        self.timers: dict[Timer, None] = {}
        self.tasks: list[asyncio.Task[Any]] = []
        self._ready: deque[Handle] = deque()
        self._due: deque[Handle] = deque()  # timers that fell due while the process was frozen
        self._scheduled = False
        self._watches: dict[tuple[str, Any], Watch] = {}
        self.life: Any = None  # the process that it is of
        self.on_exit: Callable[[], None] = lambda: None  # a callback has ended the process

    # what the process sees

    def time(self) -> float:
        return self.world.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = Handle(callback, args, context or contextvars.copy_context())
        self._ready.append(handle)
        self._wake()
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        return self.call_at(self.world.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        timer = Timer(self, when, callback, args, context or contextvars.copy_context())
        self.timers[timer] = None
        self.world.at(when, self._fall_due, timer)
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name)
        self.tasks = [one for one in self.tasks if not one.done()] if len(self.tasks) > 64 else self.tasks
        self.tasks.append(task)
        if self.dead:
            _abandon(task)
        return task

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self._watch("in", fd, lambda: fd.readable, callback, args)

    def remove_reader(self, fd: Any) -> bool:
        return self._unwatch("in", fd)

    def add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self._watch("out", fd, lambda: fd.writable, callback, args)

    def remove_writer(self, fd: Any) -> bool:
        return self._unwatch("out", fd)

    def _watch(self, way: str, fd: Any, ready: Callable[[], bool], callback: Any, arguments: tuple[Any, ...]) -> None:
        self._unwatch(way, fd)
        self._watches[way, fd] = Watch(self, fd.sock.watches, ready, callback, arguments)

    def _unwatch(self, way: str, fd: Any) -> bool:
        watch = self._watches.pop((way, fd), None)
        if watch is not None:
            watch.end()
        return watch is not None

    # type: ignore[override]
    async def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        return func(*args)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.dead:
            return
        error = context.get("exception")
        places = []
        trace = error.__traceback__ if isinstance(error, BaseException) else None
        while trace is not None:
            places.append(f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}")
            trace = trace.tb_next
        self.world.problem(f"{self.name}: {context.get('message')}: {error!r} {' '.join(places[-6:])}")

    # what the world does

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        """The process goes on, and finds timers and sockets that are due, in either order."""
        self.frozen = False
        if self.world.rng.random() < 0.5:
            self._ready.extendleft(reversed(self._due))
        else:
            self._ready.extend(self._due)
        self._due.clear()
        self._wake()

    def kill(self) -> None:
        """The process is gone; if that is within its turn, what it does in the rest of it comes to nothing."""
        self.dead = True
        self._ready.clear()
        self._due.clear()
        self.timers.clear()
        for watch in self._watches.values():
            watch.end()
        self._watches.clear()
        for task in self.tasks:
            _abandon(task)

    def _wake(self) -> None:
        if not self._scheduled and self._ready and not self.frozen and not self.dead:
            self._scheduled = True
            self.world.after(self.world.rng.random() * TURN_DELAY, self._turn)

    def _fall_due(self, timer: Timer) -> None:
        if timer.callback is None or self.dead:
            return
        self.timers.pop(timer, None)
        (self._due if self.frozen else self._ready).append(timer)
        self._wake()

    def _turn(self) -> None:
        self._scheduled = False
        if self.frozen or self.dead:
            return
        world = self.world
        world.current = self
        asyncio._set_running_loop(self)  # what an event loop does while it runs
        try:
            for _ in range(len(self._ready)):
                if self.dead:  # it has just exited
                    break
                handle = self._ready.popleft()
                if handle.callback is not None:
                    try:
                        handle.context.run(handle.callback, *handle.arguments)  # type: ignore[union-attr]
                    except KeyboardInterrupt:
                        raise
                    except SystemExit:
                        self.on_exit()
                    except BaseException as exc:
                        self.call_exception_handler({"message": "exception in a callback", "exception": exc})
        finally:
            asyncio._set_running_loop(None)
            world.current = None
        self._wake()


def _abandon(task: asyncio.Task[Any]) -> None:
    """It will not be done: nobody is to complain of that, nor of what it was about to begin with."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine: Any = task.get_coro()
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        coroutine.close()
