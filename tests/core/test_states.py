"""A flow's states: the table is whole, and refuses what it lacks."""

from __future__ import annotations

import itertools

import pytest

from ncfast.core.errors import LocalError
from ncfast.core.states import TRANSITIONS, FlowEvent, FlowState, advance


@pytest.mark.parametrize("state, event", list(itertools.product(FlowState, FlowEvent)))
def test_every_edge_is_in_the_table_or_refused(state, event):
    if (state, event) in TRANSITIONS:
        assert advance(int(state), event) == TRANSITIONS[state, event]
    else:
        with pytest.raises(LocalError, match=f"{state.name} cannot take {event.name}"):
            advance(state, event)


def test_closed_is_final_and_reachable_from_everywhere():
    assert not [edge for edge in TRANSITIONS if edge[0] is FlowState.CLOSED]
    assert all(
        TRANSITIONS[state, FlowEvent.RESET] is FlowState.CLOSED for state in FlowState if state is not FlowState.CLOSED
    )


def test_clean_ends_take_both_fins_in_any_order():
    fins = (FlowEvent.LOCAL_FIN, FlowEvent.REMOTE_FIN)
    for order in itertools.permutations(fins):
        state = advance(FlowState.OPENING, FlowEvent.ACCEPTED)
        for event in order:
            state = advance(state, event)
        assert advance(state, FlowEvent.DONE) is FlowState.CLOSED


def test_the_end_may_come_before_the_target_is_connected():
    state = advance(advance(FlowState.OPENING, FlowEvent.LOCAL_FIN), FlowEvent.ACCEPTED)
    assert state is FlowState.HALF_LOCAL


def test_each_direction_ends_once():
    for event in (FlowEvent.LOCAL_FIN, FlowEvent.REMOTE_FIN):
        state = advance(FlowState.OPEN, event)
        with pytest.raises(LocalError):
            advance(state, event)


def test_opening_and_open_states_stand_where_the_flow_looks_for_them():
    assert (
        FlowState.OPENING < FlowState.OPENING_FIN < FlowState.OPEN < FlowState.HALF_LOCAL
    )  # compared with < in flow.pyx and its halves
