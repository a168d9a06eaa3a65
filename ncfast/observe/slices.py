"""Answers that cost by the thousand agents, made on the loop a slice at a time.

Not in a thread: it would fight the byte path for the interpreter, and read what changes under it. Such work is a
generator that yields between two slices. What a slice does is bounded by a count, not by a clock, and what must agree
is read within one. In between everybody else has his turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Slices = Generator[None, None, T]


def each(items: list[T], size: int, do: Callable[[list[T]], object]) -> Slices[None]:
    """Does something with `size` of the items in each slice."""
    for start in range(0, len(items), size):
        if start:
            yield
        do(items[start : start + size])


async def spread(work: Slices[T]) -> T:
    """Runs the slices, each in a turn of the loop of its own."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result
        await asyncio.sleep(0)


class Shared(Generic[T]):
    """An answer that many may ask for at once: one is being made, and those who ask meanwhile share the next, so that
    nobody is told of a moment before he asked. `turn` is common to all answers of which one at a time is to be made,
    `spawn` makes and keeps a task (`Net.spawn`)."""

    def __init__(
        self,
        make: Callable[[], Coroutine[Any, Any, T]],
        turn: asyncio.Lock,
        spawn: Callable[[Coroutine[Any, Any, Any], str], object],
    ) -> None:
        self._make = make
        self._turn = turn
        self._spawn = spawn
        self._next: asyncio.Future[T] | None = None

    async def get(self) -> T:
        """The answer; what making it raised."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._spawn(self._run(self._next), "answer")
        return await asyncio.shield(self._next)  # one who goes away leaves it to the others

    async def _run(self, answer: asyncio.Future[T]) -> None:
        try:
            async with self._turn:
                self._next = None
                answer.set_result(await self._make())
        except Exception as exc:  # is theirs who wait
            answer.set_exception(exc)
        finally:
            answer.cancel()  # if there is none: the process stops
