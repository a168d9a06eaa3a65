"""Token buckets by source, on a clock of our own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ncfast.net import throttle
from ncfast.net.throttle import Throttle


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def admitted(one, key, count):
    return sum(one.admit(key) for _ in range(count))


def test_bursts_of_twice_the_rate_then_the_rate():
    clock = Clock()
    one = Throttle(5.0, clock)
    assert admitted(one, "a", 100) == 10
    clock.now += 1.0
    assert admitted(one, "a", 100) == 5
    clock.now += 60.0
    assert admitted(one, "a", 100) == 10


def test_rates_below_one_a_second():
    clock = Clock()
    one = Throttle(0.25, clock)
    assert admitted(one, "a", 3) == 1
    clock.now += 3.9
    assert admitted(one, "a", 3) == 0
    clock.now += 0.2
    assert admitted(one, "a", 3) == 1


def test_sources_do_not_pay_for_each_other():
    one = Throttle(1.0, Clock())
    assert admitted(one, "noisy", 1000) == 2
    assert admitted(one, "quiet", 1) == 1


def test_rate_0_admits_all():
    assert admitted(Throttle(0, Clock()), "a", 10_000) == 10_000


def test_memory_is_bounded_and_the_one_seen_longest_ago_makes_room():
    one = Throttle(1.0, Clock())
    admitted(one, "old", 5)
    for k in range(throttle.MAX_KEYS - 1):
        one.admit(str(k))
    assert not one.admit("old")  # seen again: youngest now
    one.admit("one more")
    assert len(one._buckets) == throttle.MAX_KEYS
    assert "old" in one._buckets and "0" not in one._buckets


@given(st.floats(0.1, 50), st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_never_more_than_burst_and_rate(rate, waits):
    clock = Clock()
    one = Throttle(rate, clock)
    start, count = clock.now, 0
    for wait in waits:
        clock.now += wait
        count += one.admit("a")
        assert count <= max(1.0, 2 * rate) + (clock.now - start) * rate + 1e-6
