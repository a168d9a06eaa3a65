"""Opens without an answer, by agent and connector."""

from __future__ import annotations

import pytest

from ncfast.hub.pending import PendingOpens


def fill(pending: PendingOpens, connector: str) -> int:
    """Opens on one connector until it may have no more; how many."""
    count = 0
    while not pending.full("/one", connector):
        pending.begin("/one", connector)
        count += 1
    return count


def test_each_agent_has_its_own_bound():
    pending = PendingOpens(2)
    for _ in range(2):
        assert not pending.full("/one", "ldap")
        pending.begin("/one", "ldap")
    assert pending.full("/one", "ldap") and not pending.full("/two", "ldap") and len(pending) == 2
    pending.begin("/two", "ldap")
    assert len(pending) == 3
    pending.end("/one", "ldap")
    assert not pending.full("/one", "ldap") and len(pending) == 2


def test_agents_without_opens_cost_no_memory():
    pending = PendingOpens(1)
    pending.begin("/one", "ldap")
    pending.end("/one", "ldap")
    assert not pending.full("/never seen", "ldap") and not pending._count and not pending._total


def test_a_connector_whose_target_hangs_leaves_places_for_the_others():
    pending = PendingOpens(256)
    assert fill(pending, "hung") == 192
    assert fill(pending, "hung too") == 48
    assert fill(pending, "well") == 12
    pending.end("/one", "well")
    assert not pending.full("/one", "well") and pending.full("/one", "hung")


@pytest.mark.parametrize("most", range(1, 20))
def test_no_agent_has_more_than_its_bound_and_each_connector_gets_in(most):
    pending = PendingOpens(most)
    taken = [fill(pending, str(number)) for number in range(3 * most)]
    assert taken[0] >= max(1, 3 * most // 4 - 1) and sum(taken) == len(pending) == most


def test_of_four_places_and_more_one_connector_never_has_all():
    assert [fill(PendingOpens(most), "hung") for most in (1, 2, 3, 4, 8)] == [1, 2, 3, 3, 6]
