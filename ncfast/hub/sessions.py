"""The agents whose tunnels end here: who they are, under which epoch, what they serve; and the standbys.

An agent has one current session, the newest that was granted an epoch; whatever else claims to be it is superseded. A
standby is known and authenticated, and owns nothing until it claims.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ncfast.auth import Identity
from ncfast.core.errors import Reason
from ncfast.core.messages import Hello
from ncfast.observe import log
from ncfast.registry import AgentEntry

if TYPE_CHECKING:
    from ncfast.hub.hub import Hub
    from ncfast.hub.session import AgentSession

_log = log.get("hub")

Key = tuple[str | None, str]  # tenant, connector


class Agents:
    """Sessions by agent, and by what they serve. Tells the router what comes and goes."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.sessions: dict[AgentSession, None] = {}  # every tunnel, standbys and those before HELLO too
        self._current: dict[str, AgentSession] = {}  # by agent
        self._routes: dict[Key, list[AgentSession]] = {}

    def current(self, key: str) -> AgentSession | None:
        """The session that owns the agent, if that is here."""
        return self._current.get(key)

    def serving(self, tenant: str | None, connector: str) -> list[AgentSession]:
        """Sessions to which a flow may be opened now."""
        return [session for session in self._routes.get((tenant, connector), ()) if session.serves(tenant, connector)]

    def __iter__(self) -> Iterator[AgentSession]:
        return iter(list(self.sessions))

    # claims

    async def claim(self, session: AgentSession, hello: Hello) -> None:
        """Asks the registry for an epoch, and makes the session the agent's one and only; the newest always wins."""
        hub, registry = self.hub, self.hub.registry
        epoch = await registry.claim_ownership(
            session.key,
            hub.replica_id,
            at_least=hello.last_epoch,
            instance=hello.instance,
            connectors=session.connectors,
            window=hello.window,
        )
        old = self._current.get(session.key)
        if session.link.closed:  # the agent has gone elsewhere meanwhile
            if old is not None and old.epoch < epoch:  # and has taken the registry's entry from a session that stands
                old.link.fail(Reason.GOING_AWAY, "another claim has overtaken it, and come to nothing")
            await registry.release(session.key, epoch)
            return
        if old is not None and old.epoch > epoch:
            session.link.fail(Reason.SUPERSEDED, "a newer session of the same agent")
            return
        self._current[session.key] = session
        if old is not None:
            if old.instance != session.instance:
                log.security("agent_superseded", agent_id=session.agent_id, remote=session.remote)
            old.link.fail(Reason.SUPERSEDED, "a newer session of the same agent")
        session.granted(epoch)

    def fenced(self, entry: AgentEntry) -> None:
        """The registry knows a later owner: a tunnel of ours that says otherwise is stale. Only another process of the
        agent has taken it over; a claim of this one that was given up and carried out late, behind a frozen Redis, has
        not."""
        session = self._current.get(entry.key)
        if session is not None and entry.epoch > session.epoch:
            self.hub.stats.takeovers["fenced"] += 1
            _log.warning(
                "agent_fenced", agent_id=session.agent_id, epoch=session.epoch, newest=entry.epoch, owner=entry.owner
            )
            if entry.instance and entry.instance != session.instance:
                session.link.fail(Reason.SUPERSEDED, "another process of the agent is served")
            else:
                session.link.fail(Reason.GOING_AWAY, "a later claim of the same agent was granted")

    # what sessions tell

    def up(self, session: AgentSession) -> None:
        """The session owns its agent from now on."""
        self.hub.router.agent_up(session)
        self.connectors_changed(session)

    def connectors_changed(self, session: AgentSession) -> None:
        """Routes follow what the session announces."""
        self._forget_routes(session)
        if not session.established:
            return
        tenant = session.identity.tenant
        keys = [(tenant, connector) for connector in sorted(session.connectors)]
        for key in keys:
            self._routes.setdefault(key, []).append(session)
        for key in keys:
            self.hub.router.comes(key)

    def publish(self, session: AgentSession) -> None:
        """Tells the other hubs what the session serves now."""
        if session.established and self._current.get(session.key) is session:
            registry = self.hub.registry
            self.hub.net.spawn(
                registry.add_connectors(
                    session.key, session.connectors, epoch=session.epoch, draining=session.draining
                ),
                "publish",
            )

    def leaving(self, session: AgentSession) -> None:
        """No new flows for the session. If it was a connector's last, clients are held in the hope that it comes
        back."""
        before = list(self._routes)
        self._forget_routes(session)
        for key in before:
            if key not in self._routes:
                self.hub.router.goes(key)

    def _forget_routes(self, session: AgentSession) -> None:
        for key, sessions in list(self._routes.items()):
            if session in sessions:
                sessions.remove(session)
                if not sessions:
                    del self._routes[key]

    def ended(self, session: AgentSession, reason: Reason) -> None:
        """The tunnel is gone; its flows have detached and wait for the agent."""
        hub = self.hub
        self.sessions.pop(session, None)
        hub.stats.tunnels_closed[reason.label] += 1
        if reason in (Reason.PROTOCOL_ERROR, Reason.MESSAGE_TOO_BIG, Reason.FLOOD, Reason.VERSION):
            hub.stats.protocol_errors[reason.label] += 1
        hub.tunnel_totals.add(session.link)
        hub.relays.tunnel_lost(session)
        if self._current.get(session.key) is session:
            del self._current[session.key]
            hub.net.spawn(hub.registry.release(session.key, session.epoch), "release")
        if session.established:
            self.leaving(session)
            hub.router.agent_lost(session)

    def awaited(self, identity: Identity) -> bool:
        """Whether flows wait for this agent: it may come in even while the hub drains."""
        return self.hub.router.awaits(identity.key)

    def tick(self, now: float) -> None:
        """Timers of the tunnels, about twice a second."""
        for session in self:
            try:
                session.tick(now)
            except Exception:  # one session's defect must not stop the others' clocks
                _log.exception("tick_failed")
