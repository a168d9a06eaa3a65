"""Work in slices: bounded by count, others in between, and one answer at a time for all who ask."""

from __future__ import annotations

import asyncio

import pytest

from ncfast.observe.slices import Shared, each, spread


def steps(count, log=None):
    """Work of so many slices."""
    for number in range(count):
        if number:
            yield
        if log is not None:
            log.append(number)
    return count


def test_each_takes_everything_once_and_no_slice_more_than_its_size():
    for count in (0, 1, 7, 8, 9, 24, 25):
        slices = []
        turns = sum(1 for _ in each(list(range(count)), 8, slices.append)) + 1
        assert [one for some in slices for one in some] == list(range(count))
        assert all(len(some) <= 8 for some in slices) and turns == max(1, len(slices))


def test_between_two_slices_the_loop_turns():
    async def main():
        log = []

        def tick():
            log.append("other")
            loop.call_soon(tick)

        loop = asyncio.get_running_loop()
        loop.call_soon(tick)
        assert await spread(steps(50, log)) == 50
        numbers = [place for place, one in enumerate(log) if one != "other"]
        assert len(numbers) == 50
        assert all("other" in log[a + 1 : b] for a, b in zip(numbers, numbers[1:], strict=False))

    asyncio.run(main())


def test_what_a_slice_raises_reaches_who_waits():
    def work():
        yield
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(spread(work()))


TASKS = []


def spawn(coroutine, name):
    TASKS[:] = [one for one in TASKS if not one.done()] + [asyncio.get_running_loop().create_task(coroutine)]


class Kitchen:
    """Makes answers, each when it is let."""

    def __init__(self):
        self.begun = 0
        self.under_way = 0
        self.let = asyncio.Semaphore(0)

    async def make(self):
        self.begun += 1
        self.under_way += 1
        number = self.begun
        assert self.under_way == 1
        try:
            await self.let.acquire()
        finally:
            self.under_way -= 1
        return number


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


def test_those_who_ask_while_one_is_made_share_the_next():
    async def main():
        kitchen = Kitchen()
        shared = Shared(kitchen.make, asyncio.Lock(), spawn)
        first = asyncio.create_task(shared.get())
        await turns()
        others = [asyncio.create_task(shared.get()) for _ in range(20)]
        await turns()
        assert kitchen.begun == 1
        kitchen.let.release()
        assert await first == 1
        await turns()
        assert kitchen.begun == 2
        kitchen.let.release()
        assert await asyncio.gather(*others) == [2] * 20
        later = asyncio.create_task(shared.get())
        kitchen.let.release()
        assert await later == 3

    asyncio.run(main())


def test_answers_of_different_kinds_take_turns():
    async def main():
        kitchen = Kitchen()
        turn = asyncio.Lock()
        kinds = [Shared(kitchen.make, turn, spawn) for _ in range(3)]
        asked = [asyncio.create_task(kind.get()) for kind in kinds]
        for begun in (1, 2, 3):
            await turns()
            assert kitchen.begun == begun
            kitchen.let.release()
        assert await asyncio.gather(*asked) == [1, 2, 3]

    asyncio.run(main())


def test_one_who_goes_away_takes_the_answer_from_nobody():
    async def main():
        kitchen = Kitchen()
        shared = Shared(kitchen.make, asyncio.Lock(), spawn)
        gone, stays = (asyncio.create_task(shared.get()) for _ in range(2))
        await turns()
        gone.cancel()
        await turns()
        kitchen.let.release()
        assert await stays == 1 and gone.cancelled()

    asyncio.run(main())


def test_a_failure_is_everybodys_and_the_next_answer_is_made():
    async def main():
        fails = [True]

        async def make():
            if fails.pop() if fails else False:
                raise ZeroDivisionError
            return "made"

        shared = Shared(make, asyncio.Lock(), spawn)
        found = await asyncio.gather(shared.get(), shared.get(), return_exceptions=True)
        assert [type(one) for one in found] == [ZeroDivisionError] * 2
        assert await shared.get() == "made"

    asyncio.run(main())


def test_the_end_cancels_what_is_made_and_what_is_next():
    async def main():
        kitchen = Kitchen()
        shared = Shared(kitchen.make, asyncio.Lock(), spawn)
        first = asyncio.create_task(shared.get())
        await turns()
        second = asyncio.create_task(shared.get())
        await turns()
        for task in TASKS:
            task.cancel()
        found = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(one) for one in found] == [asyncio.CancelledError] * 2 and kitchen.under_way == 0

    asyncio.run(main())
