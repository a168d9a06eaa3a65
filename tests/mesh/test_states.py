"""The table of a way's states is whole, and refuses what it lacks; pauses between attempts."""

from __future__ import annotations

import itertools
import random

import pytest

from ncfast.core.errors import LocalError
from ncfast.mesh.breaker import BASE, TRIP, Breaker
from ncfast.mesh.states import TRANSITIONS, LinkEvent, LinkState, Way, advance


def test_every_pair_has_an_edge_or_is_refused():
    for state, event in itertools.product(LinkState, LinkEvent):
        if (state, event) in TRANSITIONS:
            assert advance(state, event) is TRANSITIONS[state, event]
        else:
            with pytest.raises(LocalError, match=f"{state.name} cannot take {event.name}"):
                advance(state, event)


def test_lost_is_the_end_and_every_state_can_get_there():
    assert not [edge for edge in TRANSITIONS if edge[0] is LinkState.LOST]
    assert {state for state, event in TRANSITIONS if event is LinkEvent.DROPPED} == set(LinkState) - {LinkState.LOST}
    assert set(TRANSITIONS.values()) == set(LinkState)


def test_a_link_stands_only_after_a_handshake():
    assert [state for (state, _), after in TRANSITIONS.items() if after is LinkState.UP] == [LinkState.HANDSHAKING]


def test_a_way_knows_since_when():
    now = [5.0]
    way = Way(LinkState.BACKOFF, lambda: now[0])
    now[0] = 7.0
    way.move(LinkEvent.DIAL)
    assert (way.state, way.since) == (LinkState.DIALLING, 7.0)
    with pytest.raises(LocalError):
        way.move(LinkEvent.GOAWAY)
    assert way.state is LinkState.DIALLING


def test_pauses_double_with_full_jitter_and_the_breaker_leaves_single_probes():
    drawn = {failures: [] for failures in range(TRIP + 3)}
    for seed in range(200):
        breaker = Breaker(random.Random(seed), 30.0)
        for pauses in drawn.values():
            assert breaker.state == ("closed" if breaker.failures < TRIP else "open")
            breaker.attempt()
            assert breaker.state in ("closed", "half_open")
            pauses.append(breaker.failed())
    for failures, pauses in drawn.items():
        if failures + 1 < TRIP:
            bound = min(30.0, BASE * 2**failures)
            assert 0 <= min(pauses) < bound / 4 and bound * 3 / 4 < max(pauses) <= bound
        else:
            assert 15 <= min(pauses) and max(pauses) <= 30
    breaker.succeeded()
    assert breaker.state == "closed" and breaker.failed() <= BASE
