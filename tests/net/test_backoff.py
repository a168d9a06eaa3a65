"""Pauses between attempts: bounds that double, jitter, and what an answer asked for."""

from __future__ import annotations

import random

import pytest

from ncfast.net.backoff import Backoff


class Highest(random.Random):
    """Draws the top of the range, so that a pause is its bound."""

    def random(self):
        return 1.0


class Lowest(random.Random):
    def random(self):
        return 0.0


def test_the_bound_doubles_from_the_first_to_the_longest_and_begins_anew():
    pauses = Backoff(Highest(), 0.1, 1.0)
    assert [pauses.next() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    pauses.reset()
    assert pauses.next() == 0.1


def test_a_first_pause_that_is_raised_counts_at_once():
    pauses = Backoff(Highest(), 0.1, 3.0)
    assert [pauses.next() for _ in range(2)] == [0.1, 0.2]
    pauses.begin_at(1.0)
    assert [pauses.next() for _ in range(3)] == [1.0, 2.0, 3.0]
    pauses.begin_at(0.5)
    pauses.reset()
    assert pauses.next() == 0.5


def test_a_first_pause_above_the_longest_is_the_longest():
    assert Backoff(Highest(), 3.0, 0.5).next() == 0.5


def test_thousands_of_failures_do_not_overflow():
    pauses = Backoff(Highest(), 0.1, 30.0)
    assert {pauses.next() for _ in range(5000)} == {0.1 * 2**k for k in range(9)} | {30.0}


def test_a_longest_pause_that_changes_counts_at_once():
    pauses = Backoff(Highest(), 1.0, 2.0)
    assert [pauses.next() for _ in range(4)] == [1.0, 2.0, 2.0, 2.0]
    pauses.most = 100.0
    assert pauses.next() == 16.0
    pauses.most = 3.0
    assert pauses.next() == 3.0


@pytest.mark.parametrize(("floor", "shortest"), [(0.0, 0.0), (0.5, 0.5)])
def test_the_floor_is_a_share_of_the_bound(floor, shortest):
    pauses = Backoff(Lowest(), 1.0, 2.0, floor)
    assert [pauses.next() for _ in range(3)] == [shortest, 2 * shortest, 2 * shortest]


def test_what_an_answer_asked_for_counts_once():
    pauses = Backoff(Highest(), 0.1, 1.0)
    pauses.least = 5.0
    assert [pauses.next(), pauses.next()] == [5.0, 0.2]
