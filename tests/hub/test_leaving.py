"""Flows leave the tunnel of an agent that has claimed at the successor one by one, and no more at once than may."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hub.far import Agent
from hub.rooms import Rooms
from ncfast._frames import FrameType
from ncfast.core.errors import Reason
from ncfast.hub import leaving
from ncfast.hub.client import ClientFlow
from ncfast.hub.leaving import Leaving
from ncfast.hub.resuming import Resuming
from ncfast.hub.session import AgentSession

OPEN, DETACH = FrameType.M_OPEN, FrameType.M_DETACH


class Scene:
    """An agent with flows; it has claimed elsewhere. What a hand-over does of it is here."""

    def __init__(self, flows: int, *, alone: bool = False) -> None:
        rooms = self.rooms = Rooms()
        self.agent: Agent = rooms.agent()
        self.session: AgentSession = self.agent.session
        self.flows: list[ClientFlow] = []
        for _ in range(flows):
            self.flows.append(rooms.client().flow)
            self.agent.accept(self.agent.only(OPEN))
        self.agent.taken()
        self.keeps_up = True
        self.passed: list[ClientFlow] = []
        self.leaving = Leaving(rooms.ground.clock, lambda: self.keeps_up)
        rooms.ground.giving = self  # type: ignore[assignment]
        self.leaving.begin(self.session, self.flows, alone=alone)

    def let_go(self, session: AgentSession, cid: bytes) -> None:
        flow = self.rooms.ground.flows[cid]
        assert not flow.attached
        self.leaving.left(session, flow)
        self.passed.append(flow)

    def gave(self, cid: bytes) -> bool:
        return cid not in self.rooms.ground.flows

    def lost(self, session: AgentSession) -> None:
        self.leaving.over(session)

    def told(self) -> list[bytes]:
        self.leaving.go_on()
        self.rooms.run()
        frames = self.agent.taken()
        assert {frame.type for frame in frames} <= {DETACH}
        return [frame.cid for frame in frames]

    def lets_go(self, cid: bytes) -> None:
        self.agent.send(DETACH, cid=cid, epoch=self.session.epoch, code=Reason.LINK_LOST)


def test_flows_stay_until_the_agent_lets_go_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "AT_ONCE", 4)
    scene = Scene(7)
    cids = [flow.cid for flow in scene.flows]
    assert scene.told() == cids[:4] and scene.told() == []
    assert all(flow.attached for flow in scene.flows)
    for cid in cids[:2]:
        scene.lets_go(cid)
    assert [flow.cid for flow in scene.passed] == cids[:2]
    assert scene.told() == cids[4:6], "as many as have left"
    assert all(flow.attached for flow in scene.flows[2:]) and not scene.session.link.closed


def test_no_more_are_told_than_the_successor_keeps_up_with() -> None:
    scene = Scene(3)
    scene.keeps_up = False
    assert scene.told() == []
    scene.keeps_up = True
    assert len(scene.told()) == 3


def test_the_tunnel_ends_when_all_have_left_or_have_ended() -> None:
    scene = Scene(3)
    first, second, third = scene.told()
    scene.lets_go(first)
    scene.agent.send(FrameType.M_RST, cid=second, epoch=scene.session.epoch, code=Reason.TARGET_RESET)
    assert scene.told() == [] and not scene.session.link.closed
    scene.lets_go(third)
    scene.leaving.go_on()
    assert scene.session.link.closed and [flow.cid for flow in scene.passed] == [first, third]
    assert scene.told() == []


def test_an_agent_without_flows_has_time_to_hear_that_it_is_owned_elsewhere() -> None:
    scene = Scene(0)
    assert scene.told() == [] and not scene.session.link.closed
    scene.rooms.wait(leaving.LEAVES * 1.1)
    assert scene.told() == [] and scene.session.link.closed


def test_a_tunnel_of_which_nothing_is_heard_ends_with_all_that_are_left() -> None:
    scene = Scene(2)
    first, _ = scene.told()
    scene.rooms.wait(leaving.PATIENCE * 0.9)
    scene.lets_go(first)
    scene.rooms.wait(leaving.PATIENCE * 0.9)
    scene.leaving.go_on()
    assert not scene.session.link.closed, "it was heard"
    scene.rooms.wait(leaving.PATIENCE * 0.2)
    scene.leaving.go_on()
    assert scene.session.link.closed and not scene.flows[1].attached
    scene.rooms.run()


def test_a_tunnel_that_its_agent_has_left_with_all_flows_ends_when_all_that_it_has_sent_is_heard() -> None:
    scene = Scene(2, alone=True)
    assert scene.told() == [] and not scene.session.link.closed, "nobody answers there"
    scene.rooms.wait(leaving.SILENT * 0.9)
    scene.agent.send(FrameType.M_RST, cid=scene.flows[0].cid, epoch=scene.session.epoch, code=Reason.TARGET_RESET)
    scene.leaving.go_on()
    scene.rooms.wait(leaving.SILENT * 0.9)
    scene.leaving.go_on()
    assert scene.flows[0].closed and not scene.session.link.closed, "it was heard"
    scene.rooms.wait(leaving.SILENT * 0.2)
    scene.leaving.go_on()
    assert scene.session.link.closed and not scene.flows[1].attached
    scene.rooms.run()


def test_an_agent_that_was_not_asked_to_lets_go_of_nothing() -> None:
    scene = Scene(1)
    scene.rooms.ground.giving = None
    scene.lets_go(scene.flows[0].cid)
    scene.rooms.run()
    assert scene.session.link.closed


def test_flows_that_end_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "AT_ONCE", 4)
    scene = Scene(7)
    for cid in scene.told()[:3]:
        scene.agent.send(FrameType.M_RST, cid=cid, epoch=scene.session.epoch, code=Reason.TARGET_RESET)
    assert len(scene.told()) == 3


def test_an_agent_that_does_not_read_what_it_is_told_loses_its_tunnel_and_nothing_else() -> None:
    scene = Scene(3)
    link = scene.session.link
    link.carrier.pause_writing()  # type: ignore[attr-defined]
    for number in range(4095):  # one less than may wait
        link.refuse(number.to_bytes(16, "big"), Reason.UNKNOWN_FLOW)
    scene.leaving.go_on()
    assert link.closed
    scene.rooms.run()


def test_no_flow_is_told_to_leave_before_its_open_has_left() -> None:
    """The agent would not know it yet, and say nothing."""
    scene = Scene(0)
    client = scene.rooms.client(run=False)
    scene.leaving.begin(scene.session, [client.flow], alone=False)
    scene.leaving.go_on()
    assert scene.agent.types() == [OPEN]
    assert scene.told() == [client.flow.cid]


def test_who_asks_here_for_a_flow_that_is_the_successors_is_to_wait() -> None:
    scene = Scene(0)
    scene.agent.resume(bytes(16), bytes(16))
    assert scene.agent.types() == [DETACH], "and is not told that there is none"
    scene.rooms.ground.giving = None
    scene.agent.resume(bytes(16), bytes(16))
    assert scene.agent.types() == [FrameType.M_RST]


def test_the_owner_that_asks_here_for_a_flow_that_is_the_successors_is_to_wait() -> None:
    scene = Scene(0)
    ground = scene.rooms.ground
    told: list[tuple[bytes, int, Reason]] = []
    link = SimpleNamespace(tell_detached=lambda *words: told.append(words))
    resuming = Resuming(ground, None, None, None)  # type: ignore[arg-type]
    asked = SimpleNamespace(link=link), bytes(16), 7, b"", 0, 0
    assert resuming.by_owner(*asked) and told == [(bytes(16), 7, Reason.LINK_LOST)]  # type: ignore[arg-type]
    ground.giving = None
    assert not resuming.by_owner(*asked) and len(told) == 1, "there is none"  # type: ignore[arg-type]
