"""The flows of other hubs' clients that this hub carries to the agents it owns.

A relay stands between the tunnel of an agent and the mesh link to the hub where the client is, the origin. Who asks for
one is checked here each time: the epoch is ours, the agent's scope covers the connector, the cid is the asking hub's. A
hub that does not own the agent says so and passes nothing on: one hop. Moving the frames is the links' work
(`ncfast.core.relay`).

    what is lost        who is told                           the relay
    the agent's tunnel  the origin, by M_DETACH               ends: the agent asks anew where it has claimed
    the mesh link       the agent, by M_DETACH                waits for the origin to ask, or for the grace to end
    the origin itself   the agent, by M_RST origin_lost       ends
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ncfast._frames import SECRET_SIZE, FrameType
from ncfast.core.errors import Reason
from ncfast.core.messages import Sought, Vouch
from ncfast.core.opening import PACKED, Opening
from ncfast.core.relay import Relay
from ncfast.hub.ground import Ground
from ncfast.hub.pending import PendingOpens
from ncfast.hub.session import AgentSession
from ncfast.hub.sessions import Sessions
from ncfast.hub.ways import Ways
from ncfast.observe import log

if TYPE_CHECKING:
    from ncfast.mesh.peer import Peer

TICK_SLICE = 512  # relays without a way up looked at in one go, less than a millisecond
LAST_SECOND = 1.0  # seconds before the agent's own grace ends in which it is told that the origin is gone


class Relayed:
    """What the hub knows of a relay beside its two links."""

    __slots__ = ("away_since", "opening", "relays", "session", "since")

    def __init__(self, relays: Relays, session: AgentSession, since: float) -> None:
        self.relays = relays
        self.session = session
        self.since = since
        self.opening = ""  # the connector for which an open is without an answer
        self.away_since = -1.0  # without a mesh link since then

    def relay_opened(self, relay: Relay[Relayed]) -> None:
        """The agent has accepted the flow."""
        self.relays.opened(self)

    def relay_ended(self, relay: Relay[Relayed]) -> None:
        """The flow is over, or its tunnel is."""
        self.relays.ended(relay)


class Relays:
    """All relays of the hub, by cid."""

    def __init__(self, ground: Ground, sessions: Sessions, ways: Ways, pending: PendingOpens) -> None:
        self._ground = ground
        self._sessions = sessions
        self._ways = ways
        self._pending = pending
        self.by_cid: dict[bytes, Relay[Relayed]] = {}
        self._away: dict[Relay[Relayed], None] = {}  # those without a mesh link
        self._unticked: deque[Relay[Relayed]] = deque()  # of them, in this round

    # other hubs ask

    def open(self, peer: Peer, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        """M_OPEN from the hub of a client: to the agent, if we own it under that very epoch and it may serve."""
        request = Opening.read(body, peer.link)
        if request is None:
            return
        key = request.key
        session = self._sessions.current(key)
        if not cid.startswith(peer.instance) or not request.agent:
            log.security("relay_refused", peer=peer.replica_id, reason=Reason.SCOPE_DENIED.label, cid=cid.hex())
            peer.link.refuse(cid, Reason.SCOPE_DENIED, epoch)
            return
        reason = self._refusal(session, key, cid, epoch, request)
        if session is None or reason is not None:
            if reason is Reason.SCOPE_DENIED:
                log.security(
                    "scope_denied",
                    agent_id=request.agent,
                    connector=request.connector,
                    peer=peer.replica_id,
                    cid=cid.hex(),
                )
            peer.link.refuse(cid, reason or Reason.NOT_OWNER, epoch)
            return
        relay = self._find(cid, session)
        if relay is None:
            if self._full(session, request.connector):
                peer.link.refuse(cid, Reason.OVERLOADED, epoch)
                return
            relay = self._make(cid, session)
            relay.info.opening = request.connector
            self._pending.begin(session.key, request.connector)
            self._ground.stats.relays_opened += 1
        self._connect(relay, peer)
        if not session.packed_open and body.startswith(PACKED):
            body = request.json()
        if not session.link.forward(relay.down, FrameType.M_OPEN, body, limit=limit, rtt=peer.link.rtt):
            peer.link.refuse(cid, Reason.OVERLOADED, epoch)
            relay.forget()

    def resume_from_origin(self, peer: Peer, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> None:
        """M_RESUME from the hub of the client: to the agent, if we own it. If not, the flow waits there for whoever
        does."""
        sought: Sought | None = Sought.read(payload[SECRET_SIZE:], peer.link)
        if sought is None:
            return
        key = sought.key
        session = self._sessions.current(key)
        if not cid.startswith(peer.instance):
            log.security("relay_refused", peer=peer.replica_id, reason=Reason.RESUME_DENIED.label, cid=cid.hex())
            peer.link.refuse(cid, Reason.RESUME_DENIED, epoch)
        elif key in self._ground.locks:
            peer.link.refuse(cid, Reason.AGENT_LOCKED, epoch)
        elif session is None or epoch > session.epoch:
            peer.link.tell_detached(cid, epoch, Reason.NOT_OWNER)
        elif epoch < session.epoch:
            self._ground.stats.epochs_refused += 1
            peer.link.tell_detached(cid, epoch, Reason.STALE_EPOCH, session.epoch)
        elif not session.identity.allows(sought.connector):
            log.security(
                "scope_denied",
                agent_id=sought.agent,
                connector=sought.connector,
                peer=peer.replica_id,
                cid=cid.hex(),
            )
            peer.link.refuse(cid, Reason.SCOPE_DENIED, epoch)
        else:
            relay = self._find(cid, session)
            if relay is None:
                relay = self._make(cid, session)
                self._ground.stats.relays_resumed += 1
            self._connect(relay, peer)
            session.link.forward(
                relay.down, FrameType.M_RESUME, payload[:SECRET_SIZE], ack=ack, limit=limit, rtt=peer.link.rtt
            )

    def resume_from_agent(self, session: AgentSession, cid: bytes, secret: bytes, ack: int, limit: int) -> None:
        """M_RESUME from an agent of ours for a flow whose client is at another hub: we vouch for who asks."""
        relay = self.by_cid.get(cid)
        if relay is not None and relay.info.session.key != session.key:
            # whose flow it is only its origin knows, and asks for it there
            log.security("resume_contested", agent_id=session.agent_id, remote=session.remote, cid=cid.hex())
            session.link.tell_detached(cid, session.epoch, Reason.LINK_LOST)
            return
        relay = self._find(cid, session)
        peer = self._ways.origin(cid)
        # without a way up the agent was told to wait: it has asked before it heard of that, and drops what is answered
        if peer is None or (relay is not None and relay.mesh is None):
            if self._ways.former(cid):
                session.link.refuse(cid, Reason.ORIGIN_LOST)
            else:
                session.link.tell_detached(cid, session.epoch, Reason.LINK_LOST)
            return
        if relay is None:
            if self._too_many():
                session.link.tell_detached(cid, session.epoch, Reason.OVERLOADED)
                return
            relay = self._make(cid, session)
            self._ground.stats.relays_resumed += 1
        self._connect(relay, peer)
        vouch = Vouch(agent=session.agent_id, tenant=session.identity.tenant, instance=session.instance)
        peer.link.forward(
            relay.up, FrameType.M_RESUME, secret + vouch.pack(), ack=ack, limit=limit, rtt=session.link.rtt
        )

    def _refusal(
        self, session: AgentSession | None, key: str, cid: bytes, epoch: int, request: Opening
    ) -> Reason | None:
        """Why an open cannot be relayed, or None."""
        ground = self._ground
        if key in ground.locks:
            return Reason.AGENT_LOCKED
        if session is None or epoch > session.epoch or ground.readiness.draining or ground.mode == "off":
            return Reason.NOT_OWNER  # while we drain, or leave the mesh: not for long
        if epoch < session.epoch:
            self._ground.stats.epochs_refused += 1
            return Reason.STALE_EPOCH
        if not session.identity.allows(request.connector):
            return Reason.SCOPE_DENIED
        if session.draining:
            return Reason.NOT_OWNER  # it is about to end: who comes is held for its next process
        if not session.serves(request.tenant or None, request.connector) and self._find(cid, session) is None:
            return Reason.NO_SUCH_CONNECTOR  # but of an open that has been to the agent only that knows what became
        return None

    def _full(self, session: AgentSession, connector: str) -> bool:
        pressed = self._ground.context.share.pressed
        return pressed or self._too_many() or self._pending.full(session.key, connector)

    def _too_many(self) -> bool:
        """Whether there are as many flows, ours and others', as there may be."""
        ground = self._ground
        return len(self.by_cid) + len(ground.flows) >= ground.config.limits.max_flows

    # relays

    def _find(self, cid: bytes, session: AgentSession) -> Relay[Relayed] | None:
        """The flow's relay on this tunnel; one on a former tunnel of the agent, whose end we have not seen yet, is
        over."""
        relay = self.by_cid.get(cid)
        if relay is not None and relay.tunnel is not session.link:
            self._cut(relay)
            return None
        return relay

    def _make(self, cid: bytes, session: AgentSession) -> Relay[Relayed]:
        relay = Relay(cid, session.epoch, session.link, Relayed(self, session, self._ground.clock()))
        self.by_cid[cid] = relay
        return relay

    def _connect(self, relay: Relay[Relayed], peer: Peer) -> None:
        relay.info.away_since = -1.0
        self._away.pop(relay, None)
        if relay.mesh is not peer.link:
            relay.connect(peer.link)

    def _cut(self, relay: Relay[Relayed]) -> None:
        """Ends the relay, but not the flow."""
        relay.disconnect()
        relay.forget()

    def opened(self, info: Relayed) -> None:
        if info.opening:
            self._pending.end(info.session.key, info.opening)
            info.opening = ""

    def ended(self, relay: Relay[Relayed]) -> None:
        self.opened(relay.info)
        self._away.pop(relay, None)
        if self.by_cid.get(relay.cid) is relay:
            del self.by_cid[relay.cid]
        self._ground.stats.relays_ended += 1

    def origin(self, relay: Relay[Relayed]) -> str | None:
        """The hub where the client is; None while there is no link to it."""
        peer = self._ways.origin(relay.cid)
        return peer.replica_id if peer is not None else None

    # links

    def tunnel_lost(self, session: AgentSession) -> None:
        """The agent will ask again, wherever it claims."""
        for lane in list(session.link.lanes.values()):
            relay = lane.relay
            if relay.mesh is not None:
                relay.mesh.tell_detached(relay.cid, relay.epoch, Reason.LINK_LOST)
            self._cut(relay)

    def locked(self, session: AgentSession) -> None:
        """The agent is locked out: its relayed flows end, at both sides."""
        for lane in list(session.link.lanes.values()):
            self._end(lane.relay, Reason.AGENT_LOCKED)

    def kill(self, relay: Relay[Relayed]) -> None:
        """An operator ends the flow, at both sides."""
        self._end(relay, Reason.KILLED)

    def _end(self, relay: Relay[Relayed], reason: Reason) -> None:
        if relay.mesh is not None:
            relay.mesh.refuse(relay.cid, reason, relay.epoch)
        relay.tunnel.refuse(relay.cid, reason, relay.epoch)
        self._cut(relay)

    def peer_lost(self, peer: Peer) -> None:
        """The origin will ask again when there is a link."""
        now = self._ground.clock()
        for lane in list(peer.link.lanes.values()):
            relay = lane.relay
            if relay.mesh is peer.link:
                relay.disconnect()
                relay.info.away_since = now
                self._away[relay] = None
                relay.tunnel.tell_detached(relay.cid, relay.epoch, Reason.LINK_LOST)

    def tick(self, now: float) -> None:
        """Ends relays whose origin does not come back; a lost hub leaves thousands at once, and a few are looked at in
        each turn of the loop."""
        if not self._unticked:
            self._unticked.extend(self._away)
            self._tick_slice(now)

    def _tick_slice(self, now: float) -> None:
        ways, grace = self._ways, self._ground.config.flow.grace_sec
        for _ in range(min(TICK_SLICE, len(self._unticked))):
            relay = self._unticked.popleft()
            if relay not in self._away:
                continue
            away = now - relay.info.away_since
            if ways.former(relay.cid) or (away >= grace - LAST_SECOND and not ways.present(relay.cid)):
                relay.tunnel.refuse(relay.cid, Reason.ORIGIN_LOST, relay.epoch)
                self._cut(relay)
            elif away >= grace:
                self._cut(relay)
        if self._unticked:
            self._ground.net.call_soon(self._tick_slice, now)
