"""The far ends of a hub's links: they send frames of the test's own making, and look at those that came."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from core.raw import Frame, bare_frames, frames, message
from core.virtual import Wire

from ncfast._frames import FrameType, encode
from ncfast.auth import Identity
from ncfast.core.errors import Reason
from ncfast.core.features import MOVES
from ncfast.core.messages import VERSION, Announce, Sought, Vouch
from ncfast.core.opening import Opening
from ncfast.hub.session import AgentSession, Desk
from ncfast.mesh import handshake as mesh_handshake
from ncfast.mesh.peer import Peer
from ncfast.mesh.trust import Credential
from ncfast.net.links import LinkBounds, carry_websocket

if TYPE_CHECKING:
    from hub.rooms import Rooms

WINDOW = 1 << 20  # bytes that every far end lets us send
PROCESS, OTHER_PROCESS = "a" * 32, "b" * 32  # of an agent
BESIDE = frozenset({FrameType.PING, FrameType.PONG})  # keepalive, of which no test here tells


class _Wire(Wire):
    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Far:
    """The far end of one link."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.wire = _Wire(rooms.net.turns)
        self.kept: list[Frame] = []

    def wired(self, frame: bytes) -> bytes:
        raise NotImplementedError

    def unwired(self, data: bytes) -> list[Frame]:
        raise NotImplementedError

    def feed(self, frame: bytes) -> None:
        data = self.wired(frame)
        while data and not self.wire.lost:
            view = self.wire.protocol.get_buffer(-1)
            count = min(len(view), len(data))
            view[:count] = data[:count]
            self.wire.protocol.buffer_updated(count)
            data = data[count:]
        self.rooms.run()

    def send(self, type: FrameType, **fields: Any) -> None:
        """One frame arrives at the hub."""
        self.feed(encode(type, **fields))

    def taken(self) -> list[Frame]:
        """Frames that have come from the hub since last asked."""
        self.rooms.run()
        kept, self.kept = self.kept, []
        return kept + [one for one in self.unwired(self.wire.take()) if one.type not in BESIDE]

    def types(self) -> list[FrameType]:
        return [one.type for one in self.taken()]

    def only(self, type: FrameType) -> Frame:
        """The one frame that has come."""
        (frame,) = self.taken()
        assert frame.type is type
        return frame

    def accept(self, frame: Frame, ack: int = 0) -> None:
        """The M_OPEN is answered: the target is connected."""
        self.send(FrameType.M_OPEN_ACK, cid=frame.cid, epoch=frame.epoch, ack=ack, limit=WINDOW)

    def refuse(self, frame: Frame, reason: Reason) -> None:
        self.send(FrameType.M_RST, cid=frame.cid, epoch=frame.epoch, code=reason)

    def lose(self) -> None:
        """The connection breaks."""
        self.wire.lose()
        self.wire._lose(ConnectionResetError())
        self.rooms.run()


class Agent(Far):
    """At the far end of a tunnel."""

    def __init__(self, rooms: Rooms, who: Identity, *, process: str = PROCESS, desk: Desk | None = None) -> None:
        super().__init__(rooms)
        self.process = process
        session = AgentSession(rooms.ground, rooms.ways, rooms.tokens, desk or rooms.claims, who, "192.0.2.7:5000")
        bounds = LinkBounds.of_tunnel(rooms.ground.config.tunnel)
        rooms.net.opened()
        session.link, _ = carry_websocket(rooms.ground, self.wire, session, bounds, client=False, peer=who.agent_id)
        rooms.sessions.add(session)
        self.session, self.link = session, session.link

    wired = staticmethod(message)
    unwired = staticmethod(frames)

    def hello(self, *connectors: str, **fields: Any) -> None:
        """HELLO, as an agent of this name says it, with members changed."""
        known = {
            "version": VERSION,
            "agent_id": self.session.agent_id,
            "instance": self.process,
            "window": WINDOW,
            "features": [MOVES],
        }
        self.send(FrameType.HELLO, payload=json.dumps(known | {"connectors": list(connectors)} | fields).encode())

    def claim(self, *connectors: str, **fields: Any) -> Agent:
        """HELLO that is answered: the agent is owned here."""
        self.hello(*(connectors or ("ldap",)), **fields)
        assert self.session.owns
        ack, *self.kept = self.taken()
        assert ack.type is FrameType.HELLO_ACK
        return self

    def announce(self, *connectors: str) -> None:
        self.send(FrameType.ANNOUNCE, payload=Announce(connectors=list(connectors)).pack())

    def resume(self, cid: bytes, secret: bytes, ack: int = 0, epoch: int | None = None) -> None:
        epoch = self.link.epoch if epoch is None else epoch
        self.send(FrameType.M_RESUME, cid=cid, epoch=epoch, ack=ack, limit=WINDOW, payload=secret)


class OtherHub(Far):
    """At the far end of a mesh link, whose handshake is done."""

    def __init__(
        self, rooms: Rooms, name: str = "hub-b", *, instance: bytes | None = None, features: list[str] | None = None
    ) -> None:
        super().__init__(rooms)
        self.name = name
        self.instance = instance or name.encode().ljust(8, b".")
        rooms.known(name, self.instance)
        mesh = rooms.ways.mesh
        hello = mesh_handshake.Hello(
            version=VERSION,
            cluster=mesh.cluster,
            replica_id=name,
            instance=self.instance.hex(),
            nonce="0" * 64,
            features=features or [],
        )
        rooms.net.opened()
        mesh.door.put_stream(self.wire, Credential("machine"), "192.0.2.9", "192.0.2.9:6000", b"")
        self.send(FrameType.HELLO, payload=hello.pack())
        self.only(FrameType.HELLO_ACK)
        self.send(FrameType.AUTH, payload=mesh_handshake.Auth().pack())
        self.peer: Peer = mesh.peer(name)
        self.link = self.peer.link

    wired = staticmethod(bytes)
    unwired = staticmethod(bare_frames)

    def cid(self, number: int = 1) -> bytes:
        """Of a flow whose client is there."""
        return self.instance + number.to_bytes(8, "big")

    def open(
        self,
        cid: bytes,
        epoch: int,
        agent: str = "site",
        connector: str = "ldap",
        *,
        packed: bool = False,
        tenant: str = "",
    ) -> bytes:
        """M_OPEN to an agent that we may own; its body."""
        client = ("192.0.2.1", 4000, "192.0.2.2", 389)
        opening = Opening(connector, "in", b"U" * 16, self.name, client, agent, tenant)
        body = opening.pack() if packed else opening.json()
        self.send(FrameType.M_OPEN, cid=cid, epoch=epoch, limit=WINDOW, payload=body)
        return body

    def seek(self, cid: bytes, epoch: int, agent: str = "site", connector: str = "ldap") -> None:
        """M_RESUME for a client of that hub's."""
        behind = Sought(agent=agent, connector=connector).pack()
        self.send(FrameType.M_RESUME, cid=cid, epoch=epoch, limit=WINDOW, payload=b"s" * 16 + behind)

    def vouch(
        self, cid: bytes, epoch: int, secret: bytes, agent: str = "site", process: str = PROCESS, ack: int = 0
    ) -> None:
        """M_RESUME for a client of ours, on behalf of an agent that is owned there."""
        behind = Vouch(agent=agent, instance=process).pack()
        self.send(FrameType.M_RESUME, cid=cid, epoch=epoch, ack=ack, limit=WINDOW, payload=secret + behind)
