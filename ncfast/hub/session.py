"""The hub's side of one tunnel: who the agent is, what it serves, when its token ends.

A tunnel's HELLO either claims, and then the session owns the agent under the epoch that it is granted, or asks to stand
by; a standby may claim later, by another HELLO on the same tunnel.
"""

from __future__ import annotations

import enum
from typing import Protocol

from ncfast._frames import SECRET_SIZE, FrameType
from ncfast.auth import AuthError, ClientCertificate, Identity
from ncfast.core.errors import Blame, LocalError, Reason, blame
from ncfast.core.features import MOVES, MOVES_AGAIN, PACKED_OPEN
from ncfast.core.link import Link
from ncfast.core.messages import VERSION, Announce, Hello, HelloAck, Move
from ncfast.hub.ground import Ground
from ncfast.hub.latest import Latest
from ncfast.hub.serving import Serving
from ncfast.hub.tokens import Tokens
from ncfast.hub.ways import Ways
from ncfast.observe import log

_log = log.get("tunnel")

RESUME_TIME = 5.0  # seconds from HELLO, and again from each M_RESUME, in which the agent asks for what it still has


class SessionState(enum.Enum):
    """GREETING leads by a HELLO that claims nothing to STANDBY, by one that claims to CLAIMING; a standby's second
    HELLO claims, and leads to TAKING_OVER. An epoch makes an OWNER of both. The link's end leads from anywhere to
    ENDED."""

    GREETING = "greeting"  # no HELLO yet
    STANDBY = "standby"  # known, and owns nothing
    CLAIMING = "claiming"  # the registry is asked for an epoch
    TAKING_OVER = "taking_over"  # the same, for a standby, which stays known meanwhile
    OWNER = "owner"  # owns the agent
    ENDED = "ended"


S = SessionState

AFTER: dict[SessionState, frozenset[SessionState]] = {
    S.GREETING: frozenset({S.STANDBY, S.CLAIMING, S.ENDED}),
    S.STANDBY: frozenset({S.TAKING_OVER, S.ENDED}),
    S.CLAIMING: frozenset({S.OWNER, S.ENDED}),
    S.TAKING_OVER: frozenset({S.OWNER, S.ENDED}),
    S.OWNER: frozenset({S.ENDED}),
    S.ENDED: frozenset(),
}


class Desk(Protocol):
    """Whom a session tells what it hears (`ncfast.hub.claims`)."""

    async def claim(self, session: AgentSession, hello: Hello) -> None:
        """It asks for an epoch."""

    def granted(self, session: AgentSession) -> None:
        """It was granted one."""

    def announced(self, session: AgentSession) -> None:
        """What it serves has changed."""

    def leaving(self, session: AgentSession) -> None:
        """The agent drains: no new flows."""

    def stays(self, session: AgentSession, replica_id: str) -> None:
        """The agent does not get to the hub that it was asked to move to."""

    def resume(self, session: AgentSession, cid: bytes, secret: bytes, ack: int, limit: int) -> bool:
        """The agent asks for a flow. False: there is no such flow."""

    def ended(self, session: AgentSession, reason: Reason, *, owned: bool) -> None:
        """The tunnel is gone."""


class AgentSession(Serving):
    """Handler of a tunnel's frames on the hub. Until it was granted an epoch it serves nothing."""

    def __init__(
        self,
        ground: Ground,
        ways: Ways,
        tokens: Tokens,
        desk: Desk,
        identity: Identity,
        remote: str,
        certificate: ClientCertificate | None = None,
    ) -> None:
        """`certificate`: what the tunnel's connection was opened with; each token is judged with it."""
        super().__init__(ground, identity)
        self._ways = ways
        self._tokens = tokens
        self._desk = desk
        self.remote = remote
        self.certificate = certificate
        self.tls = False  # below it, as far as this hub: an ingress may have ended it
        self.session_id = ground.net.entropy(16).hex()
        self.agent_id = identity.agent_id
        self.software = ""
        self.moves = False  # may be asked to move
        self.moves_again = False  # also to another process of this hub
        self.alone = False  # no other tunnel of the agent carries flows
        self.state = SessionState.GREETING
        self.announced: frozenset[str] = frozenset()
        self.started_at = ground.clock()
        self.owned_since = 0.0
        self.resuming_until = 0.0  # until then flows that the agent has not asked for may still be asked for
        self._refused: frozenset[str] = frozenset()  # connectors, as the agent has been told
        self._announcements = Latest(self._hear_announcement)
        self._tokens_shown = Latest(self._hear_token)
        self._fresh_token: str | None = None
        self._refreshing = False

    def _move(self, state: SessionState) -> None:
        """The only place where the session's state changes. Raises LocalError for an edge that the table lacks."""
        if state not in AFTER[self.state]:
            raise LocalError(f"a session in {self.state.name} cannot take {state.name}")
        self.state = state
        self.owns = state is SessionState.OWNER

    @property
    def standing(self) -> bool:
        """Whether the agent is known, and not owned by this tunnel."""
        return self.state is SessionState.STANDBY or self.state is SessionState.TAKING_OVER

    @property
    def known(self) -> bool:
        """Whether a HELLO of the agent has been answered."""
        return self.owns or self.standing

    @property
    def load(self) -> int:
        """Flows on this tunnel, those of other hubs too: what `least loaded` compares."""
        return self.link.load

    # frames

    def _on_frame__hello(self, body: bytes) -> None:
        if self.state is not SessionState.GREETING and self.state is not SessionState.STANDBY:
            self.link.fail(Reason.PROTOCOL_ERROR, "a second HELLO")
            return
        hello: Hello | None = Hello.read(body, self.link)
        if hello is None:
            return
        if hello.version != VERSION:
            self.link.fail(Reason.VERSION, f"speaks version {hello.version}, this hub speaks {VERSION}")
            return
        if hello.agent_id != self.identity.agent_id:
            log.security("identity_mismatch", agent_id=self.identity.agent_id, remote=self.remote)
            self.link.fail(Reason.UNAUTHORIZED, "HELLO names another agent than the token")
            return
        if self.standing and (hello.standby or hello.instance != self.instance):
            self.link.fail(Reason.PROTOCOL_ERROR, "a second HELLO that does not claim")
            return
        self.instance = hello.instance
        self.software = hello.software
        self.moves = MOVES in hello.known
        self.moves_again = MOVES_AGAIN in hello.known
        self.packed_open = PACKED_OPEN in hello.known
        self.alone = hello.alone
        self.link.peer_window = hello.window
        self._announcements.forget()
        self._announce(frozenset(hello.connectors))
        if hello.standby:
            self._move(SessionState.STANDBY)
            _log.info("standby_connected", agent_id=self.agent_id, remote=self.remote, session=self.session_id)
            self._acknowledge()
            return
        self._move(SessionState.TAKING_OVER if self.standing else SessionState.CLAIMING)
        self._ground.net.spawn(self._claim(hello), "claim")

    async def _claim(self, hello: Hello) -> None:
        try:
            await self._desk.claim(self, hello)
        except Exception:  # no HELLO_ACK will come otherwise, and nobody would know why
            self.link.fail(Reason.INTERNAL, "the claim failed")
            raise

    def granted(self, epoch: int) -> None:
        """The session owns the agent, under `epoch`."""
        self.epoch = epoch
        self.owned_since = self._ground.clock()
        self.link.establish(epoch)
        self._move(SessionState.OWNER)
        self.resuming()
        _log.info(
            "agent_connected",
            agent_id=self.agent_id,
            remote=self.remote,
            epoch=epoch,
            session=self.session_id,
            tls=self.tls,
            connectors=sorted(self.connectors),
            software=self.software,
        )
        self._acknowledge()
        self._desk.granted(self)

    def resuming(self) -> None:
        """The agent is asking for what it still has, and may have more to ask for."""
        self.resuming_until = self._ground.clock() + RESUME_TIME

    def _acknowledge(self) -> None:
        self._hello_ack()
        if self._ground.readiness.draining:
            self.link.send(FrameType.GOAWAY, code=Reason.DRAINING)
        self.link.ping()

    def _hello_ack(self) -> None:
        config = self._ground.config
        self._refused = self.announced - self.connectors
        self.link.send(
            FrameType.HELLO_ACK,
            HelloAck(
                version=VERSION,
                replica_id=self._ground.replica_id,
                session=self.session_id,
                epoch=self.epoch,
                cluster=self._ways.active,
                refused=sorted(self._refused),
                grace=config.flow.grace_sec,
                ping_timeout=config.tunnel.ping_timeout_sec,
                drain=config.drain.timeout_sec,
                max_message=config.tunnel.max_message_bytes,
            ).pack(),
        )

    def tell_again(self) -> None:
        """Tells an agent that we own what of HELLO_ACK has changed: whether a standby is of use, what is refused."""
        if self.owns:
            self._hello_ack()

    def _announce(self, connectors: frozenset[str]) -> None:
        """Takes what the token allows; the rest is a security event, not an error, and an owner's agent hears of it."""
        self.announced = connectors
        self.connectors = frozenset(name for name in connectors if self.identity.allows(name))
        for name in sorted(connectors - self.connectors):
            log.security("scope_denied", agent_id=self.agent_id, connector=name, remote=self.remote)
        if self._refused != connectors - self.connectors:
            self.tell_again()

    def _too_early(self) -> bool:
        """Ends a link on which something else than HELLO comes first."""
        early = not self.known
        if early:
            self.link.fail(Reason.PROTOCOL_ERROR, "HELLO comes first")
        return early

    def _on_frame__announce(self, body: bytes) -> None:
        if not self._too_early():
            self._announcements.put(body, self._ground.clock())

    def _hear_announcement(self, body: bytes) -> None:
        announce: Announce | None = Announce.read(body, self.link)
        if announce is None:
            return
        before = self.connectors
        self._announce(frozenset(announce.connectors))
        _log.info(
            "connectors_changed",
            agent_id=self.agent_id,
            added=sorted(self.connectors - before),
            withdrawn=sorted(before - self.connectors),
        )
        self._desk.announced(self)

    def ask_to_move(self, replica_id: str) -> None:
        """Asks the agent, which has said that it `moves`, to be owned by that hub."""
        self.link.send(FrameType.MOVE, Move(replica_id=replica_id).pack())

    def _on_frame__move(self, body: bytes) -> None:
        if not self.owns:
            self.link.fail(Reason.PROTOCOL_ERROR, "MOVE on a tunnel that owns nothing")
            return
        move: Move | None = Move.read(body, self.link)
        if move is not None:
            self._desk.stays(self, move.replica_id)

    def _on_frame__auth(self, code: int, token: bytes) -> None:
        if not self._too_early():
            self._tokens_shown.put(token, self._ground.clock())

    def _hear_token(self, token: bytes) -> None:
        self._fresh_token = token.decode("latin-1")
        if not self._refreshing:
            self._refreshing = True
            self._ground.net.spawn(self._refresh_latest(), "refresh-token")

    async def _refresh_latest(self) -> None:
        """One at a time, so that of two tokens the later one counts."""
        try:
            while (token := self._fresh_token) is not None:
                self._fresh_token = None
                await self._refresh(token)
        finally:
            self._refreshing = False

    async def _refresh(self, token: str) -> None:
        try:
            identity = await self._tokens.verify(token, self.certificate)
        except AuthError as exc:
            self._ground.stats.auth_failed[exc.reason] += 1
            log.security("auth_failed", reason=exc.reason, agent_id=self.agent_id, remote=self.remote, refresh=True)
            self.link.send(FrameType.AUTH, exc.told.encode(), code=Reason.UNAUTHORIZED)
            return
        if identity.agent_id != self.identity.agent_id or identity.tenant != self.identity.tenant:
            log.security("identity_mismatch", agent_id=self.agent_id, remote=self.remote, refresh=True)
            self.link.fail(Reason.UNAUTHORIZED, "the refreshed token names another agent")
            return
        self.identity = identity
        self._announce(self.announced)
        self._desk.announced(self)
        self.link.send(FrameType.AUTH)
        _log.info("token_refreshed", agent_id=self.agent_id)

    def _on_frame__goaway(self, reason: Reason) -> None:
        if self._too_early():
            return
        if self.draining:
            return
        self.draining = True
        if self.owns:
            self._desk.leaving(self)
        _log.info("agent_draining", agent_id=self.agent_id)

    def _on_frame__resume(self, cid: bytes, epoch: int, secret: bytes, ack: int, limit: int) -> bool:
        if not self.owns:  # "unknown" would end a flow that lives on the agent's other tunnel
            self.link.fail(Reason.PROTOCOL_ERROR, "M_RESUME on a tunnel that owns nothing")
            return True
        if len(secret) != SECRET_SIZE:  # what follows it between hubs is ours to say
            self.link.fail(Reason.PROTOCOL_ERROR, "M_RESUME of an agent holds the secret and nothing else")
            return True
        if self._ground.gave(cid):  # the agent has claimed anew here meanwhile, and is about to move there, too
            self.link.tell_detached(cid, epoch, Reason.LINK_LOST)
            return True
        return self._desk.resume(self, cid, secret, ack, limit)

    def foreign(self, cid: bytes) -> bool:
        """Whether a flow that we do not have may be another hub's, or another process's of this one."""
        return self.relayed(cid) or self._ground.awaits(cid) or self._ground.gave(cid)

    def relayed(self, cid: bytes) -> bool:
        """Whether a flow that we do not have may be another hub's."""
        return self._ways.clustered and not self._ground.ours(cid)

    def _on_frame__open(self, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR, "agents do not open flows")

    def _on_frame__lost(self, cid: bytes, newest: int) -> None:
        if self._ground.giving is None:
            self.link.fail(Reason.PROTOCOL_ERROR, "agents relay nothing that could get lost")
        else:
            self._ground.giving.let_go(self, cid)

    def _on_frame__hello_ack(self, body: bytes) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR, "HELLO_ACK is the hub's to send")

    # link

    def link_rtt(self, link: Link, seconds: float) -> None:
        self._ground.stats.tunnel_rtt.observe(seconds)

    def link_ended(self, link: Link, reason: Reason, detail: str) -> None:
        level = _log.warning if blame(reason) is Blame.REMOTE else _log.info
        level(
            "standby_disconnected" if self.standing else "agent_disconnected",
            agent_id=self.agent_id,
            remote=self.remote,
            reason=reason.label,
            detail=detail,
            epoch=self.epoch,
        )
        owned = self.owns
        self._move(SessionState.ENDED)
        self._desk.ended(self, reason, owned=owned)

    def tick(self, now: float) -> None:
        """Timers of the tunnel, about twice a second."""
        config = self._ground.config
        if self.state is SessionState.GREETING:
            if now - self.started_at >= config.edge.handshake_timeout_sec:
                self.link.fail(Reason.HANDSHAKE_TIMEOUT, "no HELLO")
            return
        if self._ground.wall_clock() >= self.identity.expires_at + self._tokens.expiry_grace:
            log.security("token_expired", agent_id=self.agent_id, remote=self.remote)
            self.link.fail(Reason.TOKEN_EXPIRED, "no fresh token came in time")
            return
        self._announcements.tick(now)
        self._tokens_shown.tick(now)
        self.link.tick(now, config.tunnel.ping_interval_sec, config.tunnel.ping_timeout_sec, config.flow.stall_sec)
