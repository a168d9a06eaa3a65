"""What an epoch may be, by whatever clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ncfast.core.epochs import BEGINNING, LARGEST, REACH, claimable, follows, possible

DAY = 86_400.0  # seconds
NOW = 1_800_000_000.0  # in 2027
clocks = st.floats(0, 9e9)


@given(clocks)
def test_what_is_claimable_is_possible_and_leaves_room(clock):
    assert 0 < claimable(clock) <= possible(clock) <= LARGEST < 2**53


@given(clocks, st.floats(0, 1e9))
def test_bounds_never_go_back_with_the_clock(clock, later):
    assert claimable(clock) <= claimable(clock + later) and possible(clock) <= possible(clock + later)


@given(st.floats(NOW, NOW + 20 * 365 * DAY), st.floats(-9 * 365 * DAY, 9 * 365 * DAY))
def test_an_honest_epoch_is_claimable_by_a_clock_that_is_wrong_by_years(clock, wrong):
    assert clock * 1e6 + 1000 <= claimable(clock + wrong)


@given(st.floats(NOW, NOW + 20 * 365 * DAY), st.floats(-9 * 365 * DAY, 0))
def test_what_an_agent_made_up_within_the_bound_is_possible_for_a_clock_that_is_years_behind(clock, wrong):
    assert claimable(clock) + 1000 <= possible(clock + wrong)


def test_a_clock_that_stands_at_its_beginning_locks_out_nobody():
    assert NOW * 1e6 < claimable(0.0) == BEGINNING + REACH


def test_a_far_end_knows_of_an_epoch_near_ours_and_of_no_other():
    ours = int(NOW * 1e6)
    assert follows(ours + 1, ours) and follows(ours + 65_536, ours)
    assert not follows(ours + 2 * REACH, ours) and not follows(2**53 - 1, ours) and not follows(2**63, ours)
    assert follows(ours, 3)  # granted without a registry
