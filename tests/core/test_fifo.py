"""The core's own queue, beside a deque."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from ncfast.core.fifo import Fifo

STEPS = st.lists(st.one_of(st.integers(1, 40), st.sampled_from(["pop", "remove", "clear"])), max_size=60)


@given(STEPS)
def test_what_waits_leaves_in_order(steps):
    fifo, model, number = Fifo(), deque[int](), 0
    for step in steps:
        if step == "clear":
            fifo.clear()
            model.clear()
        elif step == "remove":
            item = model[len(model) // 2] if model else -1
            assert fifo.remove(item) == (item in model)
            if model:
                model.remove(item)
        elif step == "pop":
            for _ in range(min(7, len(model))):
                assert fifo.peek() == model[0]
                assert fifo.pop() == model.popleft()
        else:
            for _ in range(step):
                number += 1
                fifo.push(number)
                model.append(number)
        assert fifo.size == len(model)
    assert [fifo.pop() for _ in range(fifo.size)] == list(model)


def test_a_long_queue_gives_its_memory_back():
    fifo, item = Fifo(), object()
    for _ in range(3):
        for _ in range(5000):
            fifo.push(item)
        assert all(fifo.pop() is item for _ in range(5000)) and fifo.size == 0
