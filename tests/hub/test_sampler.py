"""What the page's curves are drawn from: rates between two samples, and nothing where nothing was measured."""

from __future__ import annotations

from math import isnan
from types import SimpleNamespace

import pytest

from hub.rooms import Rooms
from ncfast.hub.sampler import Sampler
from ncfast.observe.history import PERIOD


def last(sampler: Sampler, name: str) -> float:
    return sampler.history.curve(name)[-1]


def test_rates_are_of_what_came_since_the_last_sample():
    rooms = Rooms("off")
    sampler = Sampler(rooms.ground, rooms.ways)
    start, stats = rooms.ground.clock(), rooms.ground.stats
    listener = stats.listener("in")
    stats.flows_opened = 50
    for _ in range(100):
        listener.open_latency.observe(0.0009)
    sampler.tick(start + PERIOD / 2)
    assert isnan(last(sampler, "opens"))  # not yet
    sampler.tick(start + PERIOD)
    assert last(sampler, "opens") == 50 / PERIOD
    assert 0.0005 < last(sampler, "open_p99") <= 0.001
    stats.flows_opened = 70
    sampler.tick(start + 3 * PERIOD)  # the loop came late
    assert last(sampler, "opens") == 20 / (2 * PERIOD)
    assert isnan(last(sampler, "open_p99")) and isnan(last(sampler, "mesh_rtt"))
    assert last(sampler, "flows") == 0 and last(sampler, "held") == rooms.ground.context.held


def test_a_link_that_came_anew_counts_from_nothing():
    rooms = Rooms("off")
    links = []
    ways = SimpleNamespace(peers=lambda: links)
    sampler = Sampler(rooms.ground, ways)
    at = rooms.ground.clock()

    def carried(*totals: int) -> dict[str, float]:
        nonlocal at
        at += PERIOD
        links[:] = [
            SimpleNamespace(replica_id=f"hub-{k}", link=SimpleNamespace(bytes_in=total, bytes_out=0, rtt=0.001 * k))
            for k, total in enumerate(totals, 1)
        ]
        sampler.tick(at)
        return sampler.history.links

    assert carried(1000) == {"hub-1": pytest.approx(1000 / PERIOD)}
    assert carried(3000, 500) == {"hub-1": pytest.approx(2000 / PERIOD), "hub-2": pytest.approx(500 / PERIOD)}
    assert last(sampler, "mesh_rtt") == pytest.approx(0.002)
    assert carried(100) == {"hub-1": pytest.approx(100 / PERIOD)}  # another link, to the same hub
