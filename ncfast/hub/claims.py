"""Claims: how a session comes to own its agent, and loses it; routing and relays are told.

Rules:
 1. The newest claim wins: whatever else claims to be the agent is superseded. Epochs say who is newer.
 2. A claim whose tunnel has ended meanwhile owns nothing: its epoch is given back. If it has taken the registry's entry
    from a session that stands, that session goes too, since the cluster no longer knows it.
 3. A later owner that the registry knows ends a tunnel of ours that says otherwise. Only another process of the agent
    has taken it over; a claim of this one that was given up and carried out late, behind a frozen Redis, has not.
 4. Whoever comes new to a connector releases those who wait for it; whoever was its last leaves them in hope.
 5. An agent that says it was granted an epoch that no registry can have granted is not believed, and claims nothing:
    the next epochs would have no room above that one.
"""

from __future__ import annotations

from collections import deque
from functools import partial

from ncfast.auth import Identity
from ncfast.core.errors import Reason
from ncfast.core.messages import Hello
from ncfast.hub.ground import Ground
from ncfast.hub.level import Level
from ncfast.hub.relays import Relays
from ncfast.hub.resuming import Resuming
from ncfast.hub.routing import Router
from ncfast.hub.session import AgentSession
from ncfast.hub.sessions import Sessions
from ncfast.hub.steering import Steering
from ncfast.observe import log
from ncfast.registry import AgentEntry, DistributedRegistry

_log = log.get("hub")

TICK_SLICE = 64  # tunnels looked at in one go; 256 took up to 3 ms on a busy machine
BROKEN = frozenset({Reason.PROTOCOL_ERROR, Reason.MESSAGE_TOO_BIG, Reason.FLOOD, Reason.VERSION})


class Claims:
    """The desk of all sessions (`session.Desk`)."""

    def __init__(
        self,
        ground: Ground,
        sessions: Sessions,
        registry: DistributedRegistry,
        steering: Steering,
        router: Router,
        resuming: Resuming,
        relays: Relays,
        level: Level,
    ) -> None:
        self._ground = ground
        self._sessions = sessions
        self._registry = registry
        self._steering = steering
        self._router = router
        self._resuming = resuming
        self._relays = relays
        self._level = level
        self._unticked: deque[AgentSession] = deque()  # of this round

    async def claim(self, session: AgentSession, hello: Hello) -> None:
        """Asks the registry for an epoch, and makes the session the agent's one and only: rules 1, 2 and 5."""
        sessions, registry = self._sessions, self._registry
        if self._ground.giving is not None:
            session.link.fail(Reason.GOING_AWAY, "another process of this hub grants claims")
            return
        if hello.last_epoch > registry.claimable():
            log.security("epoch_disbelieved", agent_id=session.agent_id, remote=session.remote)
            session.link.fail(Reason.PROTOCOL_ERROR, "last_epoch is above any that was granted")
            return
        epoch = await registry.claim_ownership(
            session.key,
            self._ground.replica_id,
            at_least=hello.last_epoch,
            instance=hello.instance,
            connectors=session.connectors,
            window=hello.window,
        )
        old = sessions.current(session.key)
        if self._ground.giving is not None:  # since the claim began
            session.link.fail(Reason.GOING_AWAY, "another process of this hub grants claims")
            await registry.release(session.key, epoch)
            return
        if session.link.closed:  # the agent has gone elsewhere meanwhile, or was locked out
            if old is not None and old.epoch < epoch:
                old.link.fail(Reason.GOING_AWAY, "another claim has overtaken it, and come to nothing")
            await registry.release(session.key, epoch)
            return
        if old is not None and old.epoch > epoch:
            session.link.fail(Reason.SUPERSEDED, "a newer session of the same agent")
            return
        sessions.put(session)
        if old is not None:
            if old.instance != session.instance:
                log.security("agent_superseded", agent_id=session.agent_id, remote=session.remote)
            old.link.fail(Reason.SUPERSEDED, "a newer session of the same agent")
        session.granted(epoch)

    def fenced(self, entry: AgentEntry) -> None:
        """The registry knows a later owner: rule 3."""
        session = self._sessions.current(entry.key)
        if session is None or entry.epoch <= session.epoch:
            return
        if entry.instance == session.instance and self._level.moves_to(session, entry.owner):
            session.link.fail(Reason.GOING_AWAY, "it has moved, as it was asked to")
        else:
            self._ground.stats.takeovers["fenced"] += 1
            _log.warning(
                "agent_fenced",
                agent_id=session.agent_id,
                epoch=session.epoch,
                newest=entry.epoch,
                owner=entry.owner,
            )
            if entry.instance and entry.instance != session.instance:
                session.link.fail(Reason.SUPERSEDED, "another process of the agent is served")
            else:
                session.link.fail(Reason.GOING_AWAY, "a later claim of the same agent was granted")

    # what sessions tell

    def granted(self, session: AgentSession) -> None:
        """The session owns its agent from now on."""
        self._steering.agent_up(session)
        self._route(session)
        if self._ground.taking is not None:
            self._ground.taking.granted(session)

    def announced(self, session: AgentSession) -> None:
        """What it serves has changed."""
        self._route(session)
        self._publish(session)

    def _route(self, session: AgentSession) -> None:
        self._sessions.unroute(session)
        if session.owns:
            for key in self._sessions.route(session):
                self._router.comes(key)

    def _publish(self, session: AgentSession) -> None:
        """Tells the other hubs what the session serves now."""
        if session.owns and self._sessions.is_current(session):
            self._ground.net.spawn(
                self._registry.add_connectors(
                    session.key, session.connectors, epoch=session.epoch, draining=session.draining
                ),
                "publish",
            )

    def leaving(self, session: AgentSession) -> None:
        """No new flows for the session."""
        self._orphan(session)
        self._publish(session)

    def stays(self, session: AgentSession, replica_id: str) -> None:
        """It was asked to move, and cannot."""
        if self._ground.giving is not None:
            self._ground.giving.stays(session)
        self._level.stays(session, replica_id)

    def _orphan(self, session: AgentSession) -> None:
        """If it was a connector's last, clients are held in the hope that it comes back: rule 4."""
        for key in self._sessions.unroute(session):
            self._router.goes(key)

    def resume(self, session: AgentSession, cid: bytes, secret: bytes, ack: int, limit: int) -> bool:
        """The agent asks for a flow: one of another hub's clients, or of ours. False: there is no such flow."""
        if session.relayed(cid):
            self._relays.resume_from_agent(session, cid, secret, ack, limit)
            return True
        flow = self._ground.flows.get(cid)
        if flow is None:
            return self._keeps(session, cid, secret, ack, limit)
        session.resuming()
        return self._resuming.by_agent(flow, session, secret, ack, limit)

    def _keeps(self, session: AgentSession, cid: bytes, secret: bytes, ack: int, limit: int) -> bool:
        """Whether the flow may be yet to come from our predecessor: then it is asked for when it has."""
        awaited = self._ground.awaited
        if awaited is None or not awaited.awaits(cid) or awaited.complete(session.key):
            return False
        awaited.keep(cid, session.link, session.epoch, partial(self._resume_again, session, cid, secret, ack, limit))
        return True

    def _resume_again(self, session: AgentSession, cid: bytes, secret: bytes, ack: int, limit: int) -> None:
        if not session.link.closed and not self.resume(session, cid, secret, ack, limit):
            session.link.refuse(cid, Reason.UNKNOWN_FLOW)

    def ended(self, session: AgentSession, reason: Reason, *, owned: bool) -> None:
        """The tunnel is gone; its flows have detached and wait for the agent. `owned`: until now it owned the agent."""
        stats = self._ground.stats
        self._sessions.remove(session)
        stats.tunnels_closed[reason.label] += 1
        if reason in BROKEN:
            stats.protocol_errors[reason.label] += 1
        self._relays.tunnel_lost(session)
        if self._sessions.drop(session):
            self._ground.net.spawn(self._registry.release(session.key, session.epoch), "release")
        if owned and reason is Reason.AGENT_LOCKED:
            for key in self._sessions.unroute(session):
                self._router.barred(key, session.key)
            self._steering.agent_lost(session)
        elif owned:
            self._orphan(session)
            self._steering.agent_lost(session)
        if owned and self._ground.giving is not None:
            self._ground.giving.lost(session)

    # what others ask

    def awaited(self, identity: Identity) -> bool:
        """Whether flows wait for this agent: it may come in even while the hub drains."""
        return bool(self._steering.flows_of(identity.key))

    def tick(self) -> None:
        """Timers of the tunnels, about twice a second."""
        if not self._unticked:
            self._unticked.extend(self._sessions)
            self._tick_slice()

    def _tick_slice(self) -> None:
        """Thousands of tunnels, a few in each turn of the loop."""
        now = self._ground.clock()
        for _ in range(min(TICK_SLICE, len(self._unticked))):
            session = self._unticked.popleft()
            try:
                if not session.link.closed:
                    session.tick(now)
            except Exception:  # one session's defect must not stop the others' clocks
                _log.exception("tick_failed")
        if self._unticked:
            self._ground.net.call_soon(self._tick_slice)
