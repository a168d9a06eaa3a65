"""Flows of our clients that are asked for on a new way: by an agent that is owned here, or by the hub that owns it.

The rules of losing a way are those of `ncfast.hub.routing`; this is rules 1 and 4 at work. Who asks must be the agent's
very process and show the flow's secret; what comes under an older epoch than the flow has seen is told the newest, and
what comes under one that no registry can have granted is not believed.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from ncfast._frames import SECRET_SIZE
from ncfast.core.errors import Reason
from ncfast.core.messages import Vouch
from ncfast.hub.client import ClientFlow
from ncfast.hub.ground import Ground
from ncfast.hub.session import AgentSession
from ncfast.hub.sessions import Sessions
from ncfast.hub.steering import Steering
from ncfast.observe import log
from ncfast.registry import DistributedRegistry

if TYPE_CHECKING:
    from ncfast.hub.steering import Way
    from ncfast.mesh.peer import Peer


class Resuming:
    """Answers M_RESUME for flows whose clients are here."""

    def __init__(self, ground: Ground, sessions: Sessions, registry: DistributedRegistry, steering: Steering) -> None:
        self._ground = ground
        self._sessions = sessions
        self._registry = registry
        self._steering = steering

    def by_agent(self, flow: ClientFlow, session: AgentSession, secret: bytes, ack: int, limit: int) -> bool:
        """An agent that is owned here asks for a flow. False: it is over."""
        info, link = flow.info, session.link
        if not self._may_resume(flow, session.key, session.instance, secret):
            log.security("resume_denied", agent_id=session.agent_id, remote=session.remote, cid=flow.cid.hex())
            if flow.path is link:
                # its own agent has ended it by this, and would leave the bytes unanswered
                flow.reset(Reason.RESUME_DENIED)
            else:
                link.refuse(flow.cid, Reason.RESUME_DENIED)
            return True
        if not session.identity.allows(info.listener.connector):
            log.security(
                "scope_denied",
                agent_id=session.agent_id,
                connector=info.listener.connector,
                remote=session.remote,
                cid=flow.cid.hex(),
            )
            flow.reset(Reason.SCOPE_DENIED)
            link.refuse(flow.cid, Reason.SCOPE_DENIED)
            return True
        if session.epoch < info.epoch:
            self._ground.stats.epochs_refused += 1
            link.tell_detached(flow.cid, session.epoch, Reason.STALE_EPOCH, info.epoch)
            return True
        return self._resume(flow, session, ack, limit, session.epoch)

    def by_owner(self, peer: Peer, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> bool:
        """The hub that owns the agent asks for a flow on its behalf. False: there is no such flow."""
        flow = self._ground.flows.get(cid)
        if flow is None:
            if self._ground.gave(cid):  # by whom it is asked for as soon as it is linked
                peer.link.tell_detached(cid, epoch, Reason.LINK_LOST)
                return True
            return False
        info, link = flow.info, peer.link
        vouch: Vouch | None = Vouch.read(payload[SECRET_SIZE:], link)
        if vouch is None:
            return True
        possible = epoch <= self._registry.possible()
        if not possible or not self._may_resume(flow, vouch.key, vouch.instance, payload[:SECRET_SIZE]):
            log.security("resume_denied", agent_id=vouch.agent, peer=peer.replica_id, cid=cid.hex())
            link.refuse(cid, Reason.RESUME_DENIED, epoch)
            return True
        newest = max(info.epoch, self._epoch_elsewhere(info.agent_key, peer.replica_id))
        if epoch < newest or (epoch == info.epoch and info.owner != peer.replica_id):
            self._ground.stats.epochs_refused += 1
            link.tell_detached(cid, epoch, Reason.STALE_EPOCH, newest)
            return True
        return self._resume(flow, peer, ack, limit, epoch)

    def _epoch_elsewhere(self, agent: str, owner: str) -> int:
        """The epoch under which somebody else than `owner` holds the agent, as far as we know."""
        session = self._sessions.current(agent)
        entry = self._registry.view.agent(agent)
        return max(
            session.epoch if session is not None else 0,
            entry.epoch if entry is not None and entry.owner not in ("", owner) else 0,
        )

    def _may_resume(self, flow: ClientFlow, agent: str, instance: str, secret: bytes) -> bool:
        info = flow.info
        return info.agent_key == agent and info.instance == instance and hmac.compare_digest(secret, flow.secret)

    def _resume(self, flow: ClientFlow, way: Way, ack: int, limit: int, epoch: int) -> bool:
        self._steering.use(flow, way, epoch)
        flow.resume(way.link, ack, limit, True, epoch)
        return not flow.closed  # that was all it waited for: "unknown" tells the agent to end, too

    def outdated(self, peer: Peer, cid: bytes, newest: int) -> None:
        """The owner has the agent under a later epoch than we said: ask again under that."""
        flow = self._ground.flows.get(cid)
        if newest > self._registry.possible():
            return
        if flow is not None and not flow.closed and newest > flow.info.epoch and not flow.attached:
            self._steering.use(flow, peer, newest)
            if not flow.opening:
                flow.attach(peer.link, resumed=False, epoch=newest)
            flow.info.sought_at = self._ground.clock()
