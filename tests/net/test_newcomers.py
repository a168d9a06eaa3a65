"""Who makes room when too many wait, and who counts as one source."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfast.net.newcomers import Newcomers, source_of


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%7", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_sources(host, source):
    assert source_of(host) == source


def crowd(most):
    gone = []
    return Newcomers(most, gone.append), gone


def test_the_oldest_of_the_source_that_has_most_makes_room():
    waiting, gone = crowd(4)
    for one, source in ((1, "a"), (2, "b"), (3, "b"), (4, "c"), (5, "a")):
        waiting.enter(one, source)
    assert gone == [1] and list(waiting) == [2, 3, 4, 5]  # a and b have two each, and a's first was here before
    waiting.enter(6, "d")
    assert gone == [1, 2]


def test_one_of_another_source_is_never_the_one_that_goes():
    waiting, gone = crowd(3)
    waiting.enter("health", "balancer")
    for number in range(1000):
        waiting.enter(number, "flood")
    assert "health" in waiting and "health" not in gone and len(waiting) == 3 and gone == list(range(998))


def test_whom_an_ingress_names():
    waiting, gone = crowd(3)
    for number in range(3):
        waiting.enter(number, f"ingress:{number}")
        waiting.speaks_for(number, "flood" if number else "site")
    waiting.enter(3, "ingress:3")
    assert gone == [1]
    waiting.speaks_for(1, "late")  # it has gone
    assert list(waiting) == [0, 2, 3]


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.sampled_from(["enter", "leave", "speak"]), st.integers(0, 30), st.sampled_from("abcd"))),
)
def test_the_books_agree_whatever_happens(most, steps):
    here: dict[int, str] = {}

    def evicted(one):
        counts = Counter(here.values())
        assert counts[here[one]] == max(counts.values())
        assert one == next(other for other, source in here.items() if source == here[one])
        del here[one]

    waiting = Newcomers(most, evicted)
    for step, one, source in steps:
        if step == "enter" and one not in here:
            here[one] = source
            waiting.enter(one, source)
        elif step == "leave":
            here.pop(one, None)
            waiting.leave(one)
        elif step == "speak" and one in here:
            if here[one] != source:
                del here[one]
                here[one] = source
            waiting.speaks_for(one, source)
        assert list(waiting) == list(here) and len(waiting) == len(here) <= most
        assert {one for ones in waiting._by_source.values() for one in ones} == set(here)
        assert all(waiting._by_source.values())
