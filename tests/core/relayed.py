"""A client's hub, hubs that own or have owned the agent, and the agent: links and flows are real, the deciding is
reduced.

`Origin`, `Owner` and the sessions follow ncfast/hub/routing.py, relays.py and agents.py. The registry is a variable:
who owns the agent, and under which epoch.
"""

from __future__ import annotations

from typing import Any

from core.ends import KIB, TIMEOUTS, Agent, Cable, End, stream
from core.raw import Frame, bare_frames, frames, message
from core.virtual import UNLIMITED, Time, Wire
from ncfast._frames import SECRET_SIZE, FrameType, encode
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.link import Link
from ncfast.core.relay import Relay

INSTANCE = b"hub-boot"
MESSAGE = 256 * KIB  # the least that any hub may be configured to take
SEEK_EVERY = 2.0


class Registry:
    """Who owns the agent."""

    def __init__(self) -> None:
        self.owner: Owner = None
        self.epoch = 0


class Handler:
    """One end of one link."""

    def __init__(self, hub: Any, link: tuple[Link, Wire]) -> None:
        self.hub = hub
        self.link, self.wire = link
        self.ended: list[Reason] = []
        self.stale: list[tuple[bytes, int]] = []

    def foreign(self, cid: bytes) -> bool:
        return not cid.startswith(self.hub.instance)

    def _on_frame__lost(self, cid: bytes, newest: int) -> None:
        if newest:
            self.stale.append((cid, newest))

    def _on_frame__goaway(self, reason: Reason) -> None:
        self.link.fail(reason)  # the last word on a bare stream

    def link_rtt(self, link: Link, seconds: float) -> None:
        pass

    def link_ended(self, link: Link, reason: Reason, detail: str) -> None:
        self.ended.append(reason)
        self.lost()

    def lost(self) -> None:
        pass


class ToOwner(Handler):
    """The origin's end of its link to another hub."""

    def __init__(self, origin: Origin, owner: Owner, *, raw: bool, client: bool) -> None:
        super().__init__(origin, origin.link(self, raw=raw, client=client, max_message=MESSAGE, between_hubs=True))
        self.owner = owner

    def _on_frame__resume(self, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> bool:
        flow = self.hub.flows.get(cid)
        if flow is None:
            return False
        if payload[:SECRET_SIZE] != flow.secret:
            self.link.refuse(cid, Reason.RESUME_DENIED, epoch)
        elif epoch < self.hub.newest.get(cid, 0):
            self.link.tell_detached(cid, epoch, Reason.STALE_EPOCH, self.hub.newest[cid])
        else:
            self.hub.newest[cid] = epoch
            flow.resume(self.link, ack, limit, True, epoch)
            return not flow.closed
        return True

    def _on_frame__lost(self, cid: bytes, newest: int) -> None:
        super()._on_frame__lost(cid, newest)
        flow = self.hub.flows.get(cid)
        if flow is not None and not flow.attached and not flow.opening and newest > self.hub.newest.get(cid, 0):
            self.hub.newest[cid] = newest
            flow.attach(self.link, resumed=False, epoch=newest)


class Origin(End):
    """Clients come in here; their agent is another hub's."""

    instance = INSTANCE

    def __init__(self, time: Time, registry: Registry, **options: Any) -> None:
        super().__init__(time, client=False, **options)
        self.registry = registry
        self.ways: dict[Owner, ToOwner] = {}
        self.newest: dict[bytes, int] = {}  # epoch by flow
        self.sought: dict[bytes, float] = {}
        self._number = 0

    def connect(self) -> Flow:
        """A client has come."""
        self._number += 1
        cid = INSTANCE + self._number.to_bytes(8, "big")
        flow = Flow(self.context, cid, bytes(15) + bytes([self._number & 255]), b"open", self)
        self.flows[cid] = flow
        self.socket(flow, Reason.CLIENT_RESET)
        self.seek(flow)
        return flow

    @property
    def way(self) -> ToOwner | None:
        """The link to the agent's owner, if there is one."""
        way = self.ways.get(self.registry.owner)
        return way if way is not None and not way.link.closed else None

    def seek(self, flow: Flow) -> None:
        """Opens or resumes by way of the owner."""
        way, registry = self.way, self.registry
        if way is None or not registry.epoch or flow.closed:
            return
        self.sought[flow.cid] = self.context.clock()
        again = flow.opening and registry.epoch > self.newest.get(flow.cid, 0)
        self.newest[flow.cid] = max(registry.epoch, self.newest.get(flow.cid, 0))
        if again or not flow.attached:
            flow.attach(way.link, resumed=flow.opening, epoch=registry.epoch)

    def follow(self) -> None:
        """The registry has changed, or a link has come up."""
        for flow in list(self.flows.values()):
            if not flow.attached or (flow.opening and self.registry.epoch > self.newest.get(flow.cid, 0)):
                self.seek(flow)

    def check(self, now: float) -> None:
        for flow in list(self.flows.values()):
            if not flow.attached and now - self.sought.get(flow.cid, 0.0) >= SEEK_EVERY:
                self.seek(flow)
        super().check(now)

    def flow_resumed(self, flow: Flow) -> None:
        pass

    def flow_refused(self, flow: Flow, reason: Reason) -> bool:
        if reason not in (Reason.NOT_OWNER, Reason.STALE_EPOCH):
            return False
        flow.detach()
        return True


class ToOrigin(Handler):
    """An owner's end of its link to a client's hub."""

    def __init__(self, owner: Owner, *, raw: bool, client: bool) -> None:
        super().__init__(owner, owner.link(self, raw=raw, client=client, max_message=MESSAGE, between_hubs=True))
        owner.links.append(self.link)

    def _on_frame__open(self, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        session = self.hub.current
        if session is None or epoch != session.link.epoch:
            self.link.refuse(
                cid,
                Reason.STALE_EPOCH if session is not None and epoch < session.link.epoch else Reason.NOT_OWNER,
                epoch,
            )
            return
        relay = self.hub.relay(cid, session, self)
        if not session.link.forward(relay.down, FrameType.M_OPEN, body, limit=limit, rtt=self.link.rtt):
            self.link.refuse(cid, Reason.OVERLOADED, epoch)
            relay.forget()

    def _on_frame__resume(self, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> bool:
        session = self.hub.current
        if session is None or epoch > session.link.epoch:
            self.link.tell_detached(cid, epoch, Reason.NOT_OWNER)
        elif epoch < session.link.epoch:
            self.link.tell_detached(cid, epoch, Reason.STALE_EPOCH, session.link.epoch)
        else:
            relay = self.hub.relay(cid, session, self)
            session.link.forward(
                relay.down, FrameType.M_RESUME, payload[:SECRET_SIZE], ack=ack, limit=limit, rtt=self.link.rtt
            )
        return True

    def lost(self) -> None:
        for lane in list(self.link.lanes.values()):
            relay = lane.relay
            relay.disconnect()
            self.hub.away[relay.cid] = self.hub.context.clock()
            relay.tunnel.tell_detached(relay.cid, relay.epoch, Reason.LINK_LOST)


class OwnerSession(Handler):
    """An owner's end of the agent's tunnel."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner, owner.link(self, max_message=MESSAGE))
        owner.links.append(self.link)

    def _on_frame__hello(self, body: bytes) -> None:
        registry = self.hub.registry
        registry.epoch = max(registry.epoch, int.from_bytes(body[:8], "big")) + 1
        registry.owner = self.hub
        old, self.hub.current = self.hub.current, self
        if old is not None:
            old.link.fail(Reason.SUPERSEDED)
        self.link.establish(registry.epoch)
        self.link.send(FrameType.HELLO_ACK, registry.epoch.to_bytes(8, "big"))

    def _on_frame__lost(self, cid: bytes, newest: int) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR)

    def _on_frame__resume(self, cid: bytes, epoch: int, secret: bytes, ack: int, limit: int) -> bool:
        up, relay = self.hub.up, self.hub.relays.get(cid)
        waits = relay is not None and relay.tunnel is self.link and relay.mesh is None
        if up is None or up.link.closed or waits:
            self.link.tell_detached(cid, epoch, Reason.LINK_LOST)
        else:
            relay = self.hub.relay(cid, self, up)
            up.link.forward(
                relay.up, FrameType.M_RESUME, secret + b"the agent's", ack=ack, limit=limit, rtt=self.link.rtt
            )
        return True

    def lost(self) -> None:
        for lane in list(self.link.lanes.values()):
            relay = lane.relay
            if relay.mesh is not None:
                relay.mesh.tell_detached(relay.cid, relay.epoch, Reason.LINK_LOST)
            relay.disconnect()
            relay.forget()
        if self.hub.current is self:
            self.hub.current = None


class Owner(End):
    """The agent's tunnel ends here; the flows are another hub's."""

    instance = b"owner..."

    def __init__(self, time: Time, registry: Registry, **options: Any) -> None:
        super().__init__(time, client=False, **options)
        self.registry = registry
        self.current: OwnerSession | None = None
        self.up: ToOrigin | None = None
        self.relays: dict[bytes, Relay] = {}
        self.away: dict[bytes, float] = {}  # since when a relay has no way up
        self.links: list[Link] = []  # all that there ever were
        self.opened: list[bytes] = []
        self.over: list[bytes] = []

    def relay(self, cid: bytes, session: OwnerSession, up: ToOrigin) -> Relay:
        relay = self.relays.get(cid)
        if relay is not None and relay.tunnel is not session.link:
            relay.disconnect()
            relay.forget()
            relay = None
        if relay is None:
            relay = self.relays[cid] = Relay(cid, session.link.epoch, session.link, self)
        if relay.mesh is not up.link:
            relay.connect(up.link)
        return relay

    def check(self, now: float) -> None:
        for relay in list(self.relays.values()):
            if relay.mesh is None and now - self.away[relay.cid] >= TIMEOUTS.grace:
                relay.forget()

    def relay_opened(self, relay: Relay) -> None:
        self.opened.append(relay.cid)

    def relay_ended(self, relay: Relay) -> None:
        self.over.append(relay.cid)
        if self.relays.get(relay.cid) is relay:
            del self.relays[relay.cid]


class MovingAgent(Agent):
    """An agent that may claim at any hub; an open for a flow that has lost its way shows the new one."""

    def at(self, session: OwnerSession | None = None) -> None:
        if self.path is not None:
            self.path.fail(Reason.GOING_AWAY)
        self.dial()

    def _on_frame__open(self, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        known = self.flows.get(cid)
        if known is not None and known.path is not self.path:
            known.attach(self.path, resumed=False)
            return
        super()._on_frame__open(cid, epoch, limit, body)

    def _on_frame__resume(self, cid: bytes, epoch: int, secret: bytes, ack: int, limit: int) -> bool:
        flow = self.flows.get(cid)
        if flow is None or flow.secret != secret:
            return False
        flow.resume(self.path, ack, limit, True)
        return not flow.closed

    def _on_frame__lost(self, cid: bytes, newest: int) -> None:
        pass


class Cluster:
    """One origin, two hubs that may own the agent, and the agent. `meshes` and `tunnels` are the cables in use."""

    def __init__(
        self,
        *,
        raw: bool = True,
        owners: int = 2,
        origin: dict[str, Any] | None = None,
        owner: dict[str, Any] | None = None,
        agent: dict[str, Any] | None = None,
    ) -> None:
        self.time = Time()
        self.registry = Registry()
        self.raw = raw
        self.origin = Origin(self.time, self.registry, **(origin or {}))
        self.owners = [Owner(self.time, self.registry, **(owner or {})) for _ in range(owners)]
        self.agent = MovingAgent(self.time, **(agent or {}))
        self.ends: list[End] = [self.origin, *self.owners, self.agent]
        self.meshes: dict[Owner, Cable] = {}
        self.tunnel: Cable = None
        self.old: list[Cable] = []  # cables that were replaced, with what is still on them
        for one in self.owners:
            self.link(one)
        self.claim(self.owners[0])
        self.settle()

    @property
    def hub(self) -> Origin:
        return self.origin

    def link(self, owner: Owner) -> None:
        """A new link between the origin and `owner`; a former one ends."""
        for handler in (self.origin.ways.get(owner), owner.up):
            if handler is not None:
                handler.link.fail(Reason.DUPLICATE)
        near = ToOwner(self.origin, owner, raw=self.raw, client=True)
        far = ToOrigin(owner, raw=self.raw, client=False)
        self.origin.ways[owner], owner.up = near, far
        near.link.peer_window = self.agent.context.promise
        self.meshes[owner] = Cable(near.wire, far.wire)
        self.origin.follow()

    def claim(self, owner: Owner) -> None:
        """The agent dials `owner` and claims there."""
        session = OwnerSession(owner)
        if self.agent.path is not None:
            self.agent.path.fail(Reason.GOING_AWAY)
        if self.tunnel is not None:
            self.old.append(self.tunnel)
        self.agent.dial()
        self.tunnel = Cable(session.wire, self.agent.wire)

    @property
    def cables(self) -> list[Cable]:
        return [*self.meshes.values(), self.tunnel, *self.old]

    def carry(self, count: int = 1 << 40, cut: int = 1 << 30) -> bool:
        moved = False
        epoch = self.registry.epoch
        for cable in self.cables:
            for up in (True, False):
                moved = cable.carry(up, count, cut) or moved
        if self.registry.epoch != epoch:
            self.origin.follow()
        return moved

    def settle(self, cut: int = 1 << 30, limit: int = 10_000) -> None:
        """Carries everything, and runs the turns of all loops, until nothing moves."""
        for _ in range(limit):
            moved = self.carry(cut=cut)
            for end in self.ends:
                moved = end.turns.run() or moved
            if not moved:
                self.old = [cable for cable in self.old if not (cable.near.lost and cable.far.lost)]
                return
        raise AssertionError("never comes to rest")

    def rest(self, seconds: float = 0.1, cut: int = 1 << 30) -> None:
        self.settle(cut)
        self.time.now += seconds
        self.settle(cut)

    def check(self, seconds: float) -> None:
        self.time.now += seconds
        for end in self.ends:
            end.turns.run()
            end.check(self.time.now)
        for link in self.links():
            link.tick(self.time.now, 5.0, 15.0, 30.0)

    def links(self) -> list[Link]:
        sessions = [owner.current for owner in self.owners if owner.current is not None]
        return [
            *(way.link for way in self.origin.ways.values()),
            *(owner.up.link for owner in self.owners),
            *(session.link for session in sessions),
            self.agent.path,
        ]

    def talk(self) -> tuple[Flow, Flow]:
        """A client whose target is connected: the flow's two ends."""
        near = self.origin.connect()
        self.settle()
        far = self.agent.dials.pop()
        self.agent.accept(far)
        self.settle()
        return near, far

    def sockets(self, flow: Flow) -> tuple[Any, Any]:
        """Client's and target's."""
        return self.origin.sockets[flow.cid], self.agent.sockets[flow.cid]


def cid(number: int) -> bytes:
    """Of a flow whose client is at the origin."""
    return INSTANCE + number.to_bytes(8, "big")


def of_flow(type_: FrameType, number: int = 1, epoch: int = 1, **fields: Any) -> bytes:
    """One frame."""
    return encode(type_, cid=cid(number), epoch=epoch, **fields)


def data(number: int = 1, seq: int = 0, size: int = 100, epoch: int = 1, **fields: Any) -> bytes:
    """M_DATA of the flow's own stream."""
    return of_flow(FrameType.M_DATA, number, epoch, seq=seq, payload=stream(number, seq, size), **fields)


class Between:
    """An owner alone, with frames of the test's making from the agent (WebSocket) and from the origin (`raw`, or
    WebSocket)."""

    def __init__(self, *, raw: bool = True, **options: Any) -> None:
        self.time = Time()
        self.raw = raw
        self.owner = Owner(self.time, Registry(), kernel=1 << 30, **options)
        self.mesh = self.origin(raw)
        self.owner.up = self.mesh
        self.tunnel = OwnerSession(self.owner)
        self.from_agent(encode(FrameType.HELLO, payload=bytes(8)))
        self.to_agent()

    def origin(self, raw: bool = True) -> ToOrigin:
        """One more link to another hub."""
        return ToOrigin(self.owner, raw=raw, client=False)

    def feed(self, wire: Wire, wired: bytes, cut: int = UNLIMITED) -> None:
        """Bytes arrive; whoever still looks at the buffer afterwards must not find them."""
        at = 0
        while at < len(wired) and not wire.lost:
            view = wire.protocol.get_buffer(-1)
            piece = wired[at : at + min(cut, len(view))]
            view[: len(piece)] = piece
            try:
                wire.protocol.buffer_updated(len(piece))
            finally:
                view[: len(piece)] = bytes(len(piece))
            at += len(piece)

    def from_agent(self, *some: bytes, cut: int = UNLIMITED) -> None:
        self.feed(self.tunnel.wire, message(b"".join(some)), cut)

    def from_origin(self, *some: bytes, cut: int = UNLIMITED, mesh: ToOrigin | None = None) -> None:
        handler = mesh or self.mesh
        wired = b"".join(some)
        self.feed(handler.wire, wired if self.raw else message(wired), cut)

    def turns(self) -> None:
        while self.owner.turns.run():
            pass

    def to_agent(self) -> list[Frame]:
        self.turns()
        return frames(self.tunnel.wire.take())

    def to_origin(self, mesh: ToOrigin | None = None) -> list[Frame]:
        self.turns()
        wired = (mesh or self.mesh).wire.take()
        return (bare_frames if self.raw else frames)(wired)

    def open(self, number: int = 1, limit: int = 1 << 20) -> Relay:
        self.from_origin(of_flow(FrameType.M_OPEN, number, payload=b"open", limit=limit))
        self.from_agent(of_flow(FrameType.M_OPEN_ACK, number, limit=limit))
        assert [frame.type for frame in self.to_agent()] == [FrameType.M_OPEN]
        assert [frame.type for frame in self.to_origin()] == [FrameType.M_OPEN_ACK]
        return self.owner.relays[cid(number)]

    def tick(self, seconds: float = 0.5) -> None:
        self.time.now += seconds
        for handler in (self.mesh, self.tunnel):
            handler.link.tick(self.time.now, 5.0, 15.0, 30.0)

    def nothing_waits(self) -> bool:
        links = self.owner.links
        return all(
            (link.relay_frames, link.relay_bytes) == (0, 0) for link in links
        ) and self.owner.context.relayed == sum(link.answer_bytes for link in links if not link.closed)


def block(handler: Handler, blocked: bool = True) -> None:
    """The kernel takes nothing of what the handler's link writes, or takes it again."""
    (handler.wire.protocol.pause_writing if blocked else handler.wire.protocol.resume_writing)()
