"""A seam without a loop and without sockets: its clock is moved by hand, and its tasks wait at gates."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from core.virtual import Time, Turns

from ncfast.net.names import Names


class Gate:
    """Whoever awaits it waits until it is `open`."""

    def __init__(self, open: bool = False) -> None:
        self.open = open
        self.waiting: list[_Task] = []

    def __await__(self) -> Generator[Gate, None, None]:
        while not self.open:
            yield self

    def swing(self) -> None:
        """Opens: those that wait go on in their next turn."""
        self.open = True
        for task in self.waiting:
            task.later()


class _Task:
    """A coroutine that awaits nothing but gates."""

    def __init__(self, net: VirtualNet, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.net = net
        self.coroutine = coroutine
        self.later()

    def later(self) -> None:
        self.net.call_soon(self._step)

    def _step(self) -> None:
        try:
            gate: Gate = self.coroutine.send(None)
        except StopIteration:
            return
        except Exception as exc:
            self.net.failed.append(exc)
            return
        gate.waiting.append(self)


class VirtualNet:
    """`ncfast.net.seam.Net` without a loop and without sockets."""

    retains = False

    def __init__(self) -> None:
        self.clock = Time()
        self.turns = Turns(self.clock)
        self.call_soon = self.turns.call_soon
        self.call_later = self.turns.call_later
        self.rng = random.Random(1)
        self.entropy = random.Random(2).randbytes
        self.sockets = 0
        self.names = Names(None, self.clock)  # type: ignore[arg-type]  # nobody is looked up here
        self.failed: list[Exception] = []  # what tasks have ended with

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> _Task:
        return _Task(self, coroutine)

    def watch(self, transport: Any, on_error: Callable[[], None]) -> int:
        return -1

    def unwatch(self, number: int) -> None:
        pass

    def opened(self) -> None:
        self.sockets += 1

    def gone(self) -> None:
        self.sockets -= 1
