"""A defect in what one flow calls, or in what one link stands on, costs the others nothing."""

from __future__ import annotations

import pytest

from core.ends import Agent, Hub, Tunnel, stream
from core.relayed import Between, cid, data, of_flow
from core.virtual import Time
from ncfast._frames import FrameType
from ncfast.core.errors import Reason


class Defect(Exception):
    pass


class FragileHub(Hub):
    """Cannot bear the end of one flow."""

    fragile = b""

    def flow_closed(self, flow, reason):
        super().flow_closed(flow, reason)
        if flow.cid == self.fragile:
            raise Defect


def test_the_frames_that_leave_beside_a_flow_whose_end_fails():
    """Its reset goes behind its bytes, so that it ends while a write is gathered."""
    time = Time()
    hub, agent = FragileHub(time), Agent(time)
    tunnel = Tunnel(hub, agent)
    tunnel.settle()
    flows = [hub.connect() for _ in range(3)]
    tunnel.settle()
    for flow in list(agent.dials):
        agent.accept(flow)
    tunnel.settle()
    clients = [hub.sockets[flow.cid] for flow in flows]
    for number, client in enumerate(clients):
        client.send(stream(number, 0, 100))  # the first leaves, and the turn gathers the others
    hub.fragile = flows[1].cid
    clients[1].incoming.clear()
    flows[1].reset(Reason.CLIENT_RESET, behind=True)
    with pytest.raises(Defect):
        hub.turns.run()
    assert flows[1].closed and hub.context.live == 2
    tunnel.carry(False, 1 << 40)  # what had left: nothing runs that would send more
    received = [bytes(agent.sockets[flow.cid].received) for flow in flows]
    assert received == [stream(number, 0, 100) for number in range(3)]
    tunnel.settle()
    assert [agent.reasons.get(flow.cid) for flow in flows] == [None, [Reason.CLIENT_RESET], None]


def test_what_a_read_has_passed_to_other_links_than_the_one_that_cannot_write(monkeypatch):
    """It points into the memory of the read, and must leave before that is used again."""
    rig = Between()
    rig.open()
    other = rig.origin()
    rig.from_origin(of_flow(FrameType.M_OPEN, 2, payload=b"open", limit=1 << 20), mesh=other)
    rig.to_agent()

    def fails(lines):
        raise Defect

    monkeypatch.setattr(rig.mesh.wire, "writelines", fails, raising=False)
    with pytest.raises(Defect):
        rig.from_agent(data(1, 0, 1000), data(2, 0, 1000))
    (frame,) = rig.to_origin(other)
    assert frame.cid == cid(2) and frame.payload == stream(2, 0, 1000)
