"""The token bucket, at moments of our own."""

from __future__ import annotations

from ncfast.core.bucket import Bucket


def taken(bucket, now, rate=2.0, burst=4.0):
    return sum(bucket.take(rate, burst, now) for _ in range(100))


def test_it_begins_full_and_fills_by_the_rate_up_to_the_burst():
    bucket = Bucket(4.0, 10.0)
    assert taken(bucket, 10.0) == 4
    assert taken(bucket, 10.4) == 0
    assert taken(bucket, 10.5) == 1
    assert taken(bucket, 1000.0) == 4


def test_a_clock_that_runs_back_stands_still():
    bucket = Bucket(4.0, 10.0)
    assert taken(bucket, 10.0) == 4
    assert taken(bucket, 5.0) == 0
    assert taken(bucket, 5.5) == 1
