"""Who asks for a flow that a predecessor has not passed yet is answered when it has, or when it does not come."""

from __future__ import annotations

from types import SimpleNamespace

from hub.far import Agent
from hub.rooms import Rooms
from ncfast._frames import FrameType
from ncfast.core.errors import Reason
from ncfast.core.handover import export, restore
from ncfast.core.record import FlowRecord
from ncfast.hub.awaited import Awaited
from ncfast.hub.client import ClientFlow, ClientInfo

OPEN, RESUME, RESUME_ACK = FrameType.M_OPEN, FrameType.M_RESUME, FrameType.M_RESUME_ACK
RST, DETACH, DATA = FrameType.M_RST, FrameType.M_DETACH, FrameType.M_DATA


class Scene:
    """A flow on its way from one process to the next, and its agent, which has claimed at the next."""

    def __init__(self) -> None:
        rooms = self.rooms = Rooms()
        first = rooms.agent()
        client = rooms.client()
        first.accept(first.only(OPEN))
        first.lose()
        self.info: ClientInfo = client.flow.info
        self.secret = client.flow.secret
        client.flow.sink.detach()  # type: ignore[attr-defined]
        self.record: FlowRecord = export(client.flow)
        self.cid = self.record.cid
        self.awaited = Awaited(rooms.ground, first=100)
        self.agent: Agent = rooms.agent()

    def comes(self) -> ClientFlow:
        flow: ClientFlow = restore(self.rooms.ground.context, self.record, self.info, None)
        self.rooms.router.returns(flow)
        self.rooms.run()
        return flow


def test_the_question_is_answered_when_the_flow_is_there():
    scene = Scene()
    scene.agent.resume(scene.cid, scene.secret)
    assert scene.agent.types() == [] and len(scene.awaited) == 1
    flow = scene.comes()
    assert scene.agent.types() == [RESUME_ACK] and flow.attached and len(scene.awaited) == 0


def test_what_a_relay_said_of_the_way_beyond_it_holds_when_the_flow_comes():
    scene = Scene()
    scene.agent.send(
        RESUME, cid=scene.cid, epoch=scene.agent.session.epoch, limit=1 << 20, seq=250_000, payload=scene.secret
    )
    flow = scene.comes()
    assert flow.attached and export(flow).far_rtt == 0.25


def test_who_does_not_show_the_secret_does_not_get_it_later_either():
    scene = Scene()
    scene.agent.resume(scene.cid, bytes(16))
    flow = scene.comes()
    assert scene.agent.only(RST).code == Reason.RESUME_DENIED and not flow.attached


def test_a_flow_that_ended_meanwhile_ends_when_it_comes():
    scene = Scene()
    scene.agent.resume(scene.cid, scene.secret)
    scene.agent.send(RST, cid=scene.cid, epoch=scene.agent.session.epoch, code=Reason.TARGET_RESET)
    assert scene.comes().closed
    assert scene.rooms.reasons[scene.cid] == [Reason.TARGET_RESET]


def test_nobody_ends_a_flow_for_which_another_has_asked():
    scene = Scene()
    scene.agent.resume(scene.cid, scene.secret)
    thief = scene.rooms.agent("thief")
    thief.send(RST, cid=scene.cid, epoch=thief.session.epoch, code=Reason.TARGET_RESET)
    flow = scene.comes()
    assert flow.attached and not flow.closed


def test_other_frames_of_it_are_told_to_wait_and_it_is_asked_for_when_it_is_there():
    scene = Scene()
    scene.agent.send(DATA, cid=scene.cid, epoch=scene.agent.session.epoch, seq=0, payload=b"x")
    assert scene.agent.only(DETACH).code == Reason.LINK_LOST
    flow = scene.comes()
    assert scene.agent.types() == []
    scene.rooms.wait(0.5)
    assert scene.agent.types() == [RESUME] and flow.attached


def test_the_predecessor_hears_of_a_flow_that_is_asked_for_by_way_of_another_hub():
    """It may have it on the tunnel that its agent had there, and is told nothing of claims elsewhere."""
    rooms = Rooms("active")
    Awaited(rooms.ground, first=100)
    asked: list[tuple[bytes, int]] = []
    rooms.ground.taking = SimpleNamespace(asked=lambda cid, epoch: asked.append((cid, epoch)))  # type: ignore[assignment]
    other = rooms.hub()
    cid = rooms.ground.instance + (7).to_bytes(8, "big")
    other.vouch(cid, 40, b"s" * 16)
    assert asked == [(cid, 40)] and other.types() == []


def test_what_does_not_come_is_unknown_when_all_of_the_agents_are_there():
    scene = Scene()
    scene.agent.resume(scene.cid, scene.secret)
    other = scene.rooms.agent("other")
    other.resume(scene.cid, scene.secret)
    scene.agent.resume(scene.cid, scene.secret)
    scene.awaited.settle("/site")
    assert scene.agent.only(RST).code == Reason.UNKNOWN_FLOW
    scene.agent.resume(scene.cid, scene.secret)
    assert scene.agent.only(RST).code == Reason.UNKNOWN_FLOW and len(scene.awaited) == 0


def test_what_has_not_come_in_the_end_is_unknown():
    scene = Scene()
    scene.agent.resume(scene.cid, scene.secret)
    scene.awaited.over()
    assert scene.agent.only(RST).code == Reason.UNKNOWN_FLOW
    assert scene.rooms.ground.awaited is None


def test_cids_of_our_own_are_not_awaited():
    scene = Scene()
    ours = scene.cid[:8] + (100).to_bytes(8, "big")
    assert scene.awaited.awaits(scene.cid) and not scene.awaited.awaits(ours)
    scene.agent.resume(ours, scene.secret)
    assert scene.agent.only(RST).code == Reason.UNKNOWN_FLOW
