"""Waiting for a condition: looked at again and again, with patience, and with a failure that says what was waited for.

`until` is for tests on an event loop, `wait_until` for those that may block; they are alike in all else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 120.0  # seconds: what takes one on an idle machine may take that long on one that has other work, too
SCENARIO_SEC = 5 * PATIENCE  # for all that a test does on a loop; it tells where it was, as pytest-timeout cannot
LOOK_SEC = 0.002  # between two looks, on a loop
BLOCKING_LOOK_SEC = 0.01  # between two looks that may each cost a request to another process


async def until(
    condition: Callable[[], Any],
    what: str | Callable[[], str] = "",
    seconds: float = PATIENCE,
    look_sec: float = LOOK_SEC,
) -> Any:
    """The first true value of ``condition()``.

    Raises AssertionError with ``what``, or what it returns, when the condition is not true ``seconds`` from now. The
    clock is the machine's, whatever that of the loop does; on a loop whose clock stands still ``look_sec`` is 0.
    """
    wait = _Wait(condition, what, seconds)
    while not (found := wait.look()):
        await asyncio.sleep(look_sec)
    return found


def wait_until(condition: Callable[[], Any], what: str | Callable[[], str] = "", seconds: float = PATIENCE) -> Any:
    """As `until`, without a loop, or with one in another thread."""
    wait = _Wait(condition, what, seconds)
    while not (found := wait.look()):
        time.sleep(BLOCKING_LOOK_SEC)
    return found


class _Wait:
    def __init__(self, condition: Callable[[], Any], what: str | Callable[[], str], seconds: float) -> None:
        self._condition = condition
        self._what = what
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def look(self) -> Any:
        late = time.monotonic() > self._deadline  # asked first: a process that was stopped for long still looks once
        found = self._condition()
        if late and not found:
            what = self._what() if callable(self._what) else self._what
            raise AssertionError(f"not within {self._seconds:g} s: {what or 'what this test waits for'}")
        return found
