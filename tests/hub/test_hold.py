"""Clients that wait: in order, no more and no longer than their listener allows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from core.virtual import Time

from hub.rooms import listener
from ncfast.core.timeouts import Timeouts
from ncfast.hub.client import ClientInfo
from ncfast.hub.hold import Hold
from ncfast.observe.stats import ListenerStats

TIMEOUTS = Timeouts(10.0, 30.0, 300.0, 30.0)
LDAP = (None, "ldap")


class Queue:
    """A `Hold`, and agents that take as many flows as the test says."""

    def __init__(self) -> None:
        self.time = Time()
        self.hold = Hold(self.time)
        self.room = 0
        self.taken: list[str] = []
        self.late: list[str] = []

    def flow(self, client: str, **settings) -> SimpleNamespace:
        info = ClientInfo(listener(**settings), TIMEOUTS, client, 0, self.time(), ListenerStats())
        return SimpleNamespace(info=info, closed=False)

    def wait(self, client: str, **settings) -> bool:
        return self.hold.add(self.flow(client, **settings))

    def dispatch(self, flow: SimpleNamespace) -> bool:
        if self.room:
            self.room -= 1
            self.taken.append(flow.info.ends[0])
            return True
        return False

    def release(self, room: int, key=LDAP) -> list[str]:
        self.room, self.taken = room, []
        self.hold.release(key, self.dispatch)
        return self.taken

    def tick(self, seconds: float) -> list[str]:
        self.time.now += seconds
        self.late = []
        self.hold.tick(self.time(), self.dispatch, lambda flow: self.late.append(flow.info.ends[0]))
        return self.late

    @property
    def waiting(self) -> list[str]:
        return [flow.info.ends[0] for flow in self.hold.flows()]


def test_the_oldest_goes_first_and_nobody_is_overtaken_by_a_release_that_finds_no_more_room():
    queue = Queue()
    assert all(queue.wait(client) for client in "abcde")
    assert queue.release(2) == ["a", "b"]
    assert queue.waiting == ["c", "d", "e"] and queue.hold.count["in"] == 3
    assert queue.release(5) == ["c", "d", "e"]
    assert LDAP not in queue.hold and queue.hold.count["in"] == 0


def test_connectors_wait_apart():
    queue = Queue()
    queue.wait("a")
    queue.wait("b", connector="ssh")
    assert queue.release(5, (None, "ssh")) == ["b"] and queue.waiting == ["a"]


def test_a_listener_holds_no_more_than_it_may_and_another_has_its_own_bound():
    queue = Queue()
    assert [queue.wait(client, hold_max=2) for client in "abc"] == [True, True, False]
    assert queue.wait("d", name="other", hold_max=1) and queue.hold.count == {"in": 2, "other": 1}
    queue.release(1)
    assert queue.wait("c", hold_max=2)


def test_a_listener_that_holds_nobody():
    assert not Queue().wait("a", hold_sec=0) and not Queue().wait("a", hold_max=0)


def test_those_whose_time_is_over_are_told_of_and_nobody_else():
    queue = Queue()
    queue.wait("a", hold_sec=3)
    queue.time.now += 1
    queue.wait("b", hold_sec=3)
    assert queue.tick(1.9) == []
    assert queue.tick(0.1) == ["a"] and queue.waiting == ["b"] and queue.hold.count["in"] == 1
    assert queue.tick(1.0) == ["b"] and LDAP not in queue.hold


def test_a_tick_looks_for_a_way_before_it_looks_at_the_clock():
    queue = Queue()
    queue.wait("a", hold_sec=3)
    queue.room = 1
    assert queue.tick(3) == [] and queue.taken == ["a"]


def test_a_client_that_comes_back_into_the_queue_has_only_what_is_left_of_its_time():
    queue = Queue()
    flow = queue.flow("a", hold_sec=3)
    assert queue.hold.add(flow)
    queue.release(1)
    queue.time.now += 2
    assert queue.hold.add(flow)
    assert queue.tick(1) == ["a"]
    assert not queue.hold.add(flow)


@pytest.mark.parametrize("by", ["release", "tick"])
@pytest.mark.parametrize("first", [True, False], ids=["who was first", "who was last"])
def test_a_client_that_has_gone_is_neither_sent_on_nor_told_of(by, first):
    queue = Queue()
    flows = [queue.flow(client, hold_sec=3) for client in (("gone", "here") if first else ("here", "gone"))]
    for flow in flows:
        queue.hold.add(flow)
        flow.closed = flow.info.ends[0] == "gone"
    assert (queue.release(5) if by == "release" else queue.tick(3)) == ["here"]
    assert queue.hold.count["in"] == 0 and LDAP not in queue.hold
