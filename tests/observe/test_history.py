"""The ring behind the page's curves, and the quantile that is drawn."""

from __future__ import annotations

from math import isnan, nan

import pytest

from ncfast.observe.history import CURVES, SAMPLES, History, quantile


def test_the_ring_keeps_the_last_samples_oldest_first():
    history = History()
    assert all(map(isnan, history.curve("flows"))) and len(history.curve("held")) == SAMPLES
    for number in range(SAMPLES + 7):
        history.add([number, *[nan] * (len(CURVES) - 2), -number])
    assert history.curve("flows") == list(range(7, SAMPLES + 7))
    assert history.curve("held") == [-number for number in range(7, SAMPLES + 7)]
    assert all(map(isnan, history.curve("opens")))


def test_a_sample_has_a_value_for_each_curve():
    history = History()
    with pytest.raises(ValueError):
        history.add([1.0] * (len(CURVES) + 1))


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([0, 0, 0], 0.99, nan),
        ([100, 0, 0], 0.5, 0.5),
        ([50, 50, 0], 0.75, 1.5),
        ([50, 50, 0], 0.5, 1.0),
        ([1, 0, 99], 0.99, 2.0),  # beyond the last bound
    ],
)
def test_the_quantile_is_as_prometheus_has_it(counts, share, value):
    assert quantile((1.0, 2.0), counts, share) == pytest.approx(value, nan_ok=True)
