"""A defect in what one flow calls, or in what one link stands on, costs the others nothing."""

from __future__ import annotations

import pytest

from core.ends import Agent, Hub, Tunnel, stream
from core.raw import hub_and_peer, message
from core.relayed import Between, cid, data, of_flow
from core.virtual import Time
from ncfast._frames import FrameType, encode
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


def test_what_a_read_has_brought_to_other_flows_when_their_link_cannot_write(monkeypatch):
    """Each flow whose acknowledgement fails ends by it, and has a reset to say that fails as well."""
    _, hub, peer = hub_and_peer()
    flows = [peer.open(limit=1 << 20)[0] for _ in range(3)]
    sockets = [hub.sockets[flow.cid] for flow in flows]
    for _ in range(20):  # a link that gathers nothing: each frame is a write
        sockets[0].send(b"x")
        peer.taken()

    def fails(lines):
        raise Defect

    came = [
        encode(FrameType.M_DATA, epoch=peer.epoch, cid=flow.cid, limit=1 << 20, payload=stream(number, 0, 20_000))
        for number, flow in enumerate(flows)
    ]
    with monkeypatch.context() as patch, pytest.raises(Defect):
        patch.setattr(peer.wire, "writelines", fails)
        peer.feed(message(b"".join(came)))
    for number, (flow, socket) in enumerate(zip(flows, sockets, strict=True)):
        assert socket.received == stream(number, 0, 20_000)
        assert flow.closed == (hub.reasons.get(flow.cid) == [Reason.INTERNAL]) == socket.closing
    assert flows[0].closed and hub.context.live == sum(not flow.closed for flow in flows)
