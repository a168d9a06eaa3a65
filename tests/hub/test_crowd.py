"""Drawing from a set, against a set of Python's."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfast.hub.crowd import Crowd


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_it_holds_what_a_set_holds(steps):
    crowd, model = Crowd(), set()
    for comes, one in steps:
        if comes:
            crowd.add(one)
            model.add(one)
        elif one in model:
            crowd.remove(one)
            model.remove(one)
        else:
            with pytest.raises(KeyError):
                crowd.remove(one)
        assert sorted(crowd) == sorted(model) and len(crowd) == len(model)


def test_each_is_drawn_in_time_and_none_twice():
    crowd, rng = Crowd(), random.Random(1)
    for one in range(100):
        crowd.add(one)
    draws = [crowd.draw(10, rng) for _ in range(200)]
    assert all(len(set(draw)) == 10 for draw in draws)
    assert set().union(*draws) == set(range(100))
    assert sorted(crowd.draw(100, rng)) == list(range(100))
