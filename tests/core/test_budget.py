"""Who may hold how many bytes of memory: shares by weight, a half that is lent, the heaviest pays first."""

from __future__ import annotations

import pytest

from core.ends import KIB, Agent, Hub, Tunnel
from core.virtual import UNLIMITED, Time
from ncfast.core.budget import Budget
from ncfast.core.errors import Reason

MIB = 1 << 20


def test_half_is_divided_by_weight_and_half_is_lent():
    budget = Budget(1000)
    one, three = budget.share(1), budget.share(3)
    assert (one.own, three.own, budget.lendable) == (125, 375, 500)
    one.weigh(3)
    assert (one.own, three.own) == (250, 250)
    one.weigh(0)
    assert (one.own, three.own) == (0, 500)
    budget.resize(2000)
    assert (one.own, three.own, budget.lendable) == (0, 1000, 1000)


def test_without_a_share_that_has_weight_all_is_lent():
    budget = Budget(1000)
    share = budget.share(0)
    assert (share.own, budget.lendable) == (0, 1000)


def test_a_share_lives_as_long_as_somebody_has_it():
    budget = Budget(1000)
    kept, gone = budget.share(), budget.share()
    assert kept.own == 250
    del gone
    budget.resize(1000)
    assert kept.own == 500


class Tenants:
    """A hub with a listener for each of two tenants, and an agent with memory enough, whose targets send."""

    def __init__(self, budget: int) -> None:
        self.time = Time()
        self.hub = Hub(self.time, budget=budget, window=256 * KIB, kernel=0)
        self.agent = Agent(self.time, window=256 * KIB)
        self.hub.context.share.weigh(0)
        self.hub.shares = [self.hub.context.budget.share(), self.hub.context.budget.share()]
        self.greedy, self.honest = self.hub.shares
        self.hub.context.budget.resize(budget)  # the shares that were there before are gone
        self.tunnel = Tunnel(self.hub, self.agent)
        self.tunnel.settle()

    def client(self, share, appetite=UNLIMITED):
        while self.hub.shares[(self.hub._number + 1) % 2] is not share:
            self.hub._number += 1
        flow = self.hub.connect()
        client = self.hub.sockets[flow.cid]
        client.appetite = appetite
        self.tunnel.settle()
        if self.agent.dials:
            self.agent.accept(self.agent.dials.pop())
            self.tunnel.settle()
        return flow, client

    def answer(self, flow, size=MIB):
        target = self.agent.sockets[flow.cid]
        if not target.lost:
            target.send(bytes(size))
        self.tunnel.settle()


def test_a_flow_whose_end_is_acknowledged_holds_nothing():
    tenants = Tenants(4 * MIB)
    heavy, _ = tenants.client(tenants.greedy, appetite=0)
    tenants.answer(heavy, 200 * KIB)
    ended, client = tenants.client(tenants.greedy)
    client.fin()
    tenants.tunnel.settle()
    tenants.time.now += 0.3  # longer than an acknowledgement waits
    tenants.tunnel.settle()
    assert ended.snd_una == ended.snd_nxt + 1  # its end takes one number more
    tenants.hub.context.budget.resize(120 * KIB)
    other, _ = tenants.client(tenants.honest, appetite=0)
    tenants.answer(other, 60 * KIB)
    assert tenants.hub.reasons == {heavy.cid: [Reason.OVERLOADED]} and not ended.closed


@pytest.mark.parametrize("budget", [2 * MIB, 4 * MIB])
def test_readers_that_pause_take_no_other_tenants_memory(budget):
    tenants = Tenants(budget)
    hub, greedy, honest = tenants.hub, tenants.greedy, tenants.honest
    for _ in range(400):
        flow, _ = tenants.client(greedy, appetite=0)
        tenants.answer(flow)
        assert hub.context.held <= budget
    assert greedy.pressed and greedy.held > budget // 2
    assert not honest.pressed and honest.own == budget // 4
    flow, client = tenants.client(honest)
    tenants.answer(flow)
    assert len(client.received) == MIB and not flow.closed


def test_when_the_budget_is_spent_the_heaviest_pays_with_the_flow_that_holds_most():
    tenants = Tenants(4 * MIB)
    greedy, honest = tenants.greedy, tenants.honest
    light, _ = tenants.client(greedy, appetite=0)
    tenants.answer(light, 100 * KIB)
    heavy, _ = tenants.client(greedy, appetite=0)
    tenants.answer(heavy, 200 * KIB)
    other, client = tenants.client(honest, appetite=0)
    tenants.hub.context.budget.resize(200 * KIB)  # far below what was promised
    tenants.answer(other, 60 * KIB)
    assert tenants.hub.reasons == {heavy.cid: [Reason.OVERLOADED]} and not other.closed and not light.closed
    assert tenants.hub.sockets[heavy.cid].saw_reset
    client.take(UNLIMITED)
    tenants.tunnel.settle()
    assert len(client.received) == 60 * KIB


def test_a_share_that_is_pressed_reads_a_little_of_each_flow_and_no_more_than_there_is():
    tenants = Tenants(MIB)
    hub, greedy = tenants.hub, tenants.greedy
    flows = [tenants.client(greedy)[0] for _ in range(40)]
    for flow in flows:
        hub.sockets[flow.cid].send(bytes(200 * KIB))  # and the agent hears nothing of it
        assert hub.context.held <= MIB
    assert greedy.pressed and all(flow.snd_nxt for flow in flows), "each is heard"
    assert not tenants.honest.pressed
    for _ in range(100):  # whoever found nothing left looks again when its timers are
        tenants.tunnel.settle()
        hub.check(tenants.time.now)
    assert [len(tenants.agent.sockets[flow.cid].received) for flow in flows] == [200 * KIB] * 40
