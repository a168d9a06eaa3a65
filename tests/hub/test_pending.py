"""Opens without an answer, by agent."""

from __future__ import annotations

from ncfast.hub.pending import PendingOpens


def test_each_agent_has_its_own_bound():
    pending = PendingOpens(2)
    for _ in range(2):
        assert not pending.full("/one")
        pending.begin("/one")
    assert pending.full("/one") and not pending.full("/two") and len(pending) == 2
    pending.begin("/two")
    assert len(pending) == 3
    pending.end("/one")
    assert not pending.full("/one") and len(pending) == 2


def test_agents_without_opens_cost_no_memory():
    pending = PendingOpens(1)
    pending.begin("/one")
    pending.end("/one")
    assert not pending.full("/never seen") and not pending._count
