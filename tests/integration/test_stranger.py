"""An agent written from docs/protocol.md alone, against a real hub: no module of ours but the numbers on that page.

The WebSocket under it is that of the support package, by hand too; all rules named here are sections of the page.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.raw_tunnel import BINARY, RawTunnel, ws_frame
from support.topology import Topology
from support.until import PATIENCE

HEADER = struct.Struct("!BBHIQ16sQQQ")  # section 3
HELLO, HELLO_ACK, M_OPEN, M_OPEN_ACK, M_DATA, M_ACK, M_FIN, M_RST, M_RESUME, M_RESUME_ACK, PING, PONG = range(1, 13)
TARGET_REFUSED, UNKNOWN_FLOW = 4, 12  # section 10
WINDOW = 65536


@dataclass
class Frame:
    type: int
    flags: int
    code: int
    length: int
    epoch: int
    cid: bytes
    seq: int
    ack: int
    limit: int
    payload: bytes = b""


@dataclass
class Flow:
    """What an agent keeps of a flow over tunnels."""

    cid: bytes
    secret: bytes
    received: bytes = b""
    ended: bool = False
    sent: bytes = b""
    opened: dict = field(default_factory=dict)

    @property
    def ack(self) -> int:
        return len(self.received) + self.ended

    @property
    def limit(self) -> int:
        return len(self.received) + WINDOW


class Stranger:
    """One agent process; `connect` gives it a tunnel."""

    def __init__(self, hub: Topology, agent_id: str = "stranger") -> None:
        self.hub = hub
        self.agent_id = agent_id
        self.instance = os.urandom(16).hex()
        self.epoch = 0
        self.stream = b""
        self.tunnel: RawTunnel

    def connect(self) -> None:
        self.stream = b""
        self.tunnel = RawTunnel(self.hub.hub.edge).upgrade(self.hub.token(self.agent_id))
        hello = {
            "version": 1,
            "agent_id": self.agent_id,
            "instance": self.instance,
            "connectors": ["echo"],
            "last_epoch": self.epoch,
            "window": WINDOW,
            "later": "members that a hub does not know are ignored",
        }
        self.send(HELLO, payload=json.dumps(hello).encode(), epoch=0)
        granted = json.loads(self.want(HELLO_ACK).payload)["epoch"]
        assert granted > self.epoch
        self.epoch = granted

    def cut(self) -> None:
        self.tunnel.sock.close()

    def send(
        self,
        type: int,
        *,
        flow: Flow | None = None,
        seq: int = 0,
        code: int = 0,
        payload: bytes = b"",
        epoch: int | None = None,
        flags: int = 0,
        cid: bytes = bytes(16),
    ) -> None:
        """One frame, in two WebSocket messages: borders mean nothing."""
        ack, limit = (flow.ack, flow.limit) if flow is not None else (0, 0)
        wire = (
            HEADER.pack(
                type,
                flags,
                code,
                len(payload),
                self.epoch if epoch is None else epoch,
                flow.cid if flow is not None else cid,
                seq,
                ack,
                limit,
            )
            + payload
        )
        self.tunnel.send(ws_frame(wire[:20]) + ws_frame(wire[20:]))

    def frame(self) -> Frame:
        """The hub's next frame; PINGs are answered."""
        while True:
            while len(self.stream) < HEADER.size or len(self.stream) < HEADER.size + HEADER.unpack_from(self.stream)[3]:
                opcode, payload = self.tunnel.message()
                assert opcode in (BINARY, 0), (opcode, payload)
                self.stream += payload
            frame = Frame(*HEADER.unpack_from(self.stream))
            frame.payload = self.stream[HEADER.size : HEADER.size + frame.length]
            self.stream = self.stream[HEADER.size + frame.length :]
            if frame.type == PING:
                self.send(PONG, seq=frame.seq)
            elif frame.type != PONG:
                return frame

    def want(self, *types: int) -> Frame:
        while (frame := self.frame()).type not in types:
            pass
        return frame

    def opened(self) -> Flow:
        frame = self.want(M_OPEN)
        body = json.loads(frame.payload)
        return Flow(frame.cid, bytes.fromhex(body["secret"]), opened=body)

    def take(self, flow: Flow, until: int | None = None) -> None:
        """Receives `until` so many bytes, or the end. Section 6, rule 4."""
        while not flow.ended and (until is None or len(flow.received) < until):
            frame = self.want(M_DATA, M_FIN)
            assert frame.cid == flow.cid and frame.epoch == self.epoch and frame.seq <= len(flow.received)
            if frame.type == M_FIN:
                assert frame.seq == len(flow.received)
                flow.ended = True
            else:
                flow.received += frame.payload[len(flow.received) - frame.seq :]
            self.send(M_ACK, flow=flow)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Topology]:
    made = Topology(tmp_path, {"echo": ("127.0.0.1", 1)}, agents=0)
    try:
        yield made
    finally:
        made.close()


def client_of(hub: Topology) -> socket.socket:
    return socket.create_connection(hub.hub.listener("echo"), timeout=PATIENCE)


def received(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


def test_a_flow_goes_on_over_a_second_tunnel(hub):
    agent = Stranger(hub)
    agent.connect()
    agent.send(200, flags=1, payload=b"a type from the future, to be skipped")
    question, answer = os.urandom(200_000), os.urandom(50_000)
    with client_of(hub) as client:
        flow = agent.opened()
        assert (flow.opened["connector"], flow.opened["client"][:2]) == ("echo", list(client.getsockname()))
        agent.send(M_OPEN_ACK, flow=flow)
        client.sendall(question[:60_000])
        agent.take(flow, 60_000)
        agent.send(M_DATA, flow=flow, seq=0, payload=answer[:30_000])
        agent.cut()

        agent.connect()
        client.sendall(question[60_000:])
        client.shutdown(socket.SHUT_WR)
        agent.send(M_RESUME, flow=flow, payload=flow.secret)
        agent.take(flow, 60_001)  # may come before M_RESUME_ACK
        agent.take(flow)
        assert flow.received == question and flow.ended
        agent.send(M_RESUME, flow=flow, payload=flow.secret)
        from_there = agent.want(M_RESUME_ACK).ack
        assert from_there <= 30_000
        for at in range(from_there // 7 * 7, len(answer), 7_777):  # cut differently, and a little of it again
            agent.send(M_DATA, flow=flow, seq=at, payload=answer[at : at + 7_777])
        agent.send(M_FIN, flow=flow, seq=len(answer))
        assert received(client) == answer
        assert agent.want(M_ACK).cid == flow.cid
    line = hub.hub.log.wait("flow_closed")
    assert (line["reason"], line["bytes_in"], line["bytes_out"]) == ("closed", len(question), len(answer))
    agent.cut()


def test_another_instance_resets_what_the_former_one_had(hub):
    agent = Stranger(hub)
    agent.connect()
    with client_of(hub) as client:
        flow = agent.opened()
        agent.send(M_OPEN_ACK, flow=flow)
        agent.send(M_DATA, flow=flow, seq=0, payload=b"x")
        assert client.recv(1) == b"x"
        agent.cut()
        restarted = Stranger(hub)
        restarted.connect()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        restarted.send(M_RESUME, flow=flow, payload=flow.secret)
        refused = restarted.want(M_RST)
        assert (refused.cid, refused.code) == (flow.cid, UNKNOWN_FLOW)
        restarted.cut()


def test_a_refused_open_is_tried_on_the_other_agent_from_the_first_byte(hub):
    one, other = Stranger(hub, "one"), Stranger(hub, "other")
    one.connect()
    with client_of(hub) as client:
        client.sendall(b"question")
        refused = one.opened()
        other.connect()
        one.send(M_RST, cid=refused.cid, code=TARGET_REFUSED)
        flow = other.opened()
        assert flow.cid == refused.cid
        other.take(flow, 8)
        assert flow.received == b"question"
        other.send(M_OPEN_ACK, flow=flow)
        other.send(M_DATA, flow=flow, seq=0, payload=b"answer")
        other.send(M_FIN, flow=flow, seq=6)
        assert received(client) == b"answer"
        client.shutdown(socket.SHUT_WR)
        other.take(flow)
    assert hub.hub.log.wait("flow_closed")["reason"] == "closed"
    one.cut()
    other.cut()
