"""The hub's side of one tunnel: who the agent is, what it serves, when its token ends.

A tunnel's HELLO either claims, and then the session owns the agent under the epoch that it is granted, or asks to stand
by; a standby may claim later, by another HELLO on the same tunnel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ncfast._frames import SECRET_SIZE, FrameType
from ncfast.auth import AuthError, Identity
from ncfast.core.errors import Blame, Reason, RemoteError, blame
from ncfast.core.link import Link
from ncfast.core.messages import VERSION, Announce, Hello, HelloAck
from ncfast.observe import log

if TYPE_CHECKING:
    from ncfast.hub.hub import Hub

_log = log.get("tunnel")

RESUME_TIME = 5.0  # seconds from HELLO, and again from each M_RESUME, in which the agent asks for what it still has


class AgentSession:
    """Handler of a tunnel's frames on the hub. Until it was granted an epoch it serves nothing."""

    def __init__(self, hub: Hub, identity: Identity, remote: str) -> None:
        self.hub = hub
        self.identity = identity
        self.remote = remote
        self.session_id = hub.net.entropy(16).hex()
        self.agent_id = identity.agent_id
        self.key = identity.key
        self.instance = ""
        self.software = ""
        self.epoch = 0
        self.announced: frozenset[str] = frozenset()
        self.connectors: frozenset[str] = frozenset()  # announced and within the token's scope
        self.draining = False
        self.standing = False  # known, and owns nothing
        self.established = False  # owns the agent
        self.opening = 0  # opens without an answer, our clients' and other hubs'
        self.started_at = hub.net.clock()
        self.resuming_until = 0.0  # until then flows that the agent has not asked for may still be asked for
        self._claiming = False
        self._fresh_token: str | None = None
        self._refreshing = False
        self.link: Link = None  # type: ignore[assignment]  # set by the edge before any frame can come

    @property
    def load(self) -> int:
        """Flows on this tunnel, those of other hubs too: what `least loaded` compares."""
        return self.link.load

    def serves(self, tenant: str | None, connector: str) -> bool:
        """Whether a new flow may be opened here: announced, within the token's scope and lifetime, not leaving."""
        return (
            self.established
            and not self.draining
            and tenant == self.identity.tenant
            and connector in self.connectors
            and self.identity.allows(connector)
            and self.hub.wall_clock() < self.identity.expires_at
        )

    # frames

    def _on_frame__hello(self, body: bytes) -> None:
        if self.established or self._claiming:
            self.link.fail(Reason.PROTOCOL_ERROR, "a second HELLO")
            return
        try:
            hello: Hello = Hello.unpack(body)
        except RemoteError as exc:
            self.link.fail(exc.reason, exc.detail)
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
        self.link.peer_window = hello.window
        self._announce(frozenset(hello.connectors))
        if hello.standby:
            self.standing = True
            _log.info("standby_connected", agent_id=self.agent_id, remote=self.remote, session=self.session_id)
            self._acknowledge()
            return
        self._claiming = True
        self.hub.net.spawn(self._claim(hello), "claim")

    async def _claim(self, hello: Hello) -> None:
        try:
            await self.hub.agents.claim(self, hello)
        except Exception:  # no HELLO_ACK will come otherwise, and nobody would know why
            self.link.fail(Reason.INTERNAL, "the claim failed")
            raise
        finally:
            self._claiming = False

    def granted(self, epoch: int) -> None:
        """The session owns the agent, under `epoch`."""
        self.epoch = epoch
        self.link.establish(epoch)
        self.standing = False
        self.established = True
        self.resuming_until = self.hub.net.clock() + RESUME_TIME
        _log.info(
            "agent_connected",
            agent_id=self.agent_id,
            remote=self.remote,
            epoch=epoch,
            session=self.session_id,
            connectors=sorted(self.connectors),
            software=self.software,
        )
        self._acknowledge()
        self.hub.agents.up(self)

    def _acknowledge(self) -> None:
        self._hello_ack()
        if self.hub.readiness.draining:
            self.link.send(FrameType.GOAWAY, code=Reason.DRAINING)
        self.link.ping()

    def _hello_ack(self) -> None:
        self.link.send(
            FrameType.HELLO_ACK,
            HelloAck(
                version=VERSION,
                replica_id=self.hub.replica_id,
                session=self.session_id,
                epoch=self.epoch,
                cluster=self.hub.active,
            ).pack(),
        )

    def mode_changed(self) -> None:
        """Tells an agent that we own whether a standby is of use from now on."""
        if self.established:
            self._hello_ack()

    def _announce(self, connectors: frozenset[str]) -> None:
        """Takes what the token allows; the rest is a security event, not an error."""
        self.announced = connectors
        self.connectors = frozenset(name for name in connectors if self.identity.allows(name))
        for name in sorted(connectors - self.connectors):
            log.security("scope_denied", agent_id=self.agent_id, connector=name, remote=self.remote)

    def _too_early(self) -> bool:
        """Ends a link on which something else than HELLO comes first."""
        early = not self.established and not self.standing
        if early:
            self.link.fail(Reason.PROTOCOL_ERROR, "HELLO comes first")
        return early

    def _on_frame__announce(self, body: bytes) -> None:
        if self._too_early():
            return
        try:
            announce: Announce = Announce.unpack(body)
        except RemoteError as exc:
            self.link.fail(exc.reason, exc.detail)
            return
        before = self.connectors
        self._announce(frozenset(announce.connectors))
        _log.info(
            "connectors_changed",
            agent_id=self.agent_id,
            added=sorted(self.connectors - before),
            withdrawn=sorted(before - self.connectors),
        )
        self._changed()

    def _changed(self) -> None:
        self.hub.agents.connectors_changed(self)
        self.hub.agents.publish(self)

    def _on_frame__auth(self, code: int, token: bytes) -> None:
        if self._too_early():
            return
        self._fresh_token = token.decode("latin-1")
        if not self._refreshing:
            self._refreshing = True
            self.hub.net.spawn(self._refresh_latest(), "refresh-token")

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
            identity = await self.hub.verifier.verify(token)
        except AuthError as exc:
            self.hub.stats.auth_failed[exc.reason] += 1
            log.security("auth_failed", reason=exc.reason, agent_id=self.agent_id, remote=self.remote, refresh=True)
            self.link.send(FrameType.AUTH, code=Reason.UNAUTHORIZED)
            return
        if identity.agent_id != self.identity.agent_id or identity.tenant != self.identity.tenant:
            log.security("identity_mismatch", agent_id=self.agent_id, remote=self.remote, refresh=True)
            self.link.fail(Reason.UNAUTHORIZED, "the refreshed token names another agent")
            return
        self.identity = identity
        self._announce(self.announced)
        self._changed()
        self.link.send(FrameType.AUTH)
        _log.info("token_refreshed", agent_id=self.agent_id)

    def _on_frame__goaway(self, reason: Reason) -> None:
        if self._too_early():
            return
        if self.draining:
            return
        self.draining = True
        if self.established:
            self.hub.agents.leaving(self)
            self.hub.agents.publish(self)
        _log.info("agent_draining", agent_id=self.agent_id)

    def _on_frame__resume(self, cid: bytes, epoch: int, secret: bytes, ack: int, limit: int) -> bool:
        if not self.established:
            return False
        if len(secret) != SECRET_SIZE:  # what follows it between hubs is ours to say
            self.link.fail(Reason.PROTOCOL_ERROR, "M_RESUME of an agent holds the secret and nothing else")
            return True
        if self.foreign(cid):
            self.hub.relays.resume_from_agent(self, cid, secret, ack, limit)
            return True
        flow = self.hub.flows.get(cid)
        if flow is None:
            return False
        self.resuming_until = self.hub.net.clock() + RESUME_TIME
        return self.hub.router.resume_local(flow, self, secret, ack, limit)

    def foreign(self, cid: bytes) -> bool:
        """Whether a flow that we do not have may be another hub's."""
        return self.hub.clustered and not cid.startswith(self.hub.instance)

    def _on_frame__open(self, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR, "agents do not open flows")

    def _on_frame__stale(self, cid: bytes, epoch: int) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR, "agents do not lose their way to themselves")

    def _on_frame__hello_ack(self, body: bytes) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR, "HELLO_ACK is the hub's to send")

    # link

    def link_rtt(self, link: Link, seconds: float) -> None:
        self.hub.stats.tunnel_rtt.observe(seconds)

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
        self.hub.agents.ended(self, reason)

    def tick(self, now: float) -> None:
        """Timers of the tunnel, about once a second."""
        config = self.hub.config
        if not self.established and not self.standing and not self._claiming:
            if now - self.started_at >= config.edge.handshake_timeout_sec:
                self.link.fail(Reason.HANDSHAKE_TIMEOUT, "no HELLO")
            return
        if self.hub.wall_clock() >= self.identity.expires_at + self.hub.expiry_grace:
            log.security("token_expired", agent_id=self.agent_id, remote=self.remote)
            self.link.fail(Reason.TOKEN_EXPIRED, "no fresh token came in time")
            return
        self.link.tick(now, config.tunnel.ping_interval_sec, config.tunnel.ping_timeout_sec, config.flow.stall_sec)
