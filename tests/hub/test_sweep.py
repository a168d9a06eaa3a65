"""The rounds in which a hub looks after the timers of its flows."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import pytest

from ncfast.core.timeouts import STOOD_STILL
from ncfast.hub import hub as module
from ncfast.hub.hub import Hub


def sweeping(now: float, due: float) -> tuple[SimpleNamespace, list[str], list[tuple[float, str]]]:
    """As much of a hub as a round needs; whom it has looked after, and what it does next, and when."""
    looked: list[str] = []
    then: list[tuple[float, str]] = []
    hub = SimpleNamespace(
        net=SimpleNamespace(
            clock=lambda: now, call_later=lambda pause, callback, *_: then.append((pause, callback.__name__))
        ),
        router=SimpleNamespace(look_after=lambda flow, at: looked.append(flow)),
        _sweep_due=due,
        _timers={},
    )
    for name in ("_sweep", "_sweep_round"):
        setattr(hub, name, getattr(Hub, name).__get__(hub))
    return hub, looked, then


@pytest.mark.parametrize("late", [0.0, STOOD_STILL - 0.01])
def test_a_round_looks_after_a_slice_at_a_time(late):
    hub, looked, then = sweeping(100.0, 100.0 - late)
    left = deque(f"flow {number}" for number in range(module.SWEEP_SLICE + 1))
    hub._sweep(left)
    assert len(looked) == module.SWEEP_SLICE and then == [(module.SWEEP_PAUSE, "_sweep")]
    hub._sweep(left)
    assert len(looked) == module.SWEEP_SLICE + 1 and then[1] == (module.SWEEP_EVERY, "_sweep_round")
    assert hub._sweep_due == 100.0 + module.SWEEP_EVERY


def test_a_hub_that_has_stood_still_judges_nobody_before_it_has_read_what_came():
    """It reset clients whose answers lay in its sockets, or whose links it did not know to be dead, `open_timeout`."""
    hub, looked, then = sweeping(100.0, 100.0 - STOOD_STILL)
    hub._sweep(deque(["flow"]))
    assert looked == [] and then == [(module.SWEEP_EVERY, "_sweep_round")]
