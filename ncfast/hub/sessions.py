"""The table of the agents whose tunnels end here: which session is an agent's current one, and what each serves.

An agent has one current session, the newest that was granted an epoch. A standby is known and authenticated, and owns
nothing until it claims. Who may enter what is decided in `claims`; routing and relays only ask.
"""

from __future__ import annotations

from collections.abc import Iterator

from ncfast.core.errors import Reason
from ncfast.hub.client import Key
from ncfast.hub.crowd import Crowd
from ncfast.hub.session import AgentSession
from ncfast.observe.totals import LinkTotals

_NOBODY: Crowd[AgentSession] = Crowd()
TUNNELS = 3  # of one agent: one that owns, one that stands by, one that is dead and not missed yet


class Sessions:
    """Sessions by agent, and by what they serve."""

    def __init__(self) -> None:
        self._all: dict[AgentSession, None] = {}  # every tunnel, standbys and those before HELLO too
        self._of: dict[str, dict[AgentSession, None]] = {}  # the same by agent, each oldest first
        self._current: dict[str, AgentSession] = {}  # by agent
        self._routes: dict[Key, Crowd[AgentSession]] = {}
        self._routed: dict[AgentSession, list[Key]] = {}
        self.totals = LinkTotals()  # of tunnels that have ended

    def __iter__(self) -> Iterator[AgentSession]:
        return iter(list(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def add(self, session: AgentSession) -> None:
        """A tunnel has come about."""
        self._all[session] = None
        self._of.setdefault(session.key, {})[session] = None

    def of(self, agent: str) -> list[AgentSession]:
        """All tunnels of the agent, standbys and those before HELLO too."""
        return list(self._of.get(agent, ()))

    def make_room(self, agent: str, most: int = TUNNELS) -> None:
        """The agent gets another tunnel, and shall not have more than `most` with it: the oldest that do not own it
        end. One token takes no more places than that, and the newest counts, since whoever dials again may have lost
        those before."""
        mine = self._of.get(agent, {})
        spare = [session for session in mine if not session.owns]
        for session in spare[: max(0, len(mine) + 1 - most)]:
            session.link.fail(Reason.SUPERSEDED, "a newer tunnel of the same agent")

    def remove(self, session: AgentSession) -> None:
        """It is gone."""
        self._all.pop(session, None)
        mine = self._of.get(session.key, {})
        mine.pop(session, None)
        if not mine:
            self._of.pop(session.key, None)
        self.totals.add(session.link)

    # owners

    def current(self, agent: str) -> AgentSession | None:
        """The session that owns the agent, if that is here."""
        return self._current.get(agent)

    def is_current(self, session: AgentSession) -> bool:
        return self._current.get(session.key) is session

    def put(self, session: AgentSession) -> None:
        """The session is its agent's one and only from now on."""
        self._current[session.key] = session

    def drop(self, session: AgentSession) -> bool:
        """It no longer is. False: another has taken its place already."""
        if not self.is_current(session):
            return False
        del self._current[session.key]
        return True

    # routes

    def serving(self, tenant: str | None, connector: str) -> list[AgentSession]:
        """Sessions to which a flow may be opened now."""
        return [session for session in self._routes.get((tenant, connector), ()) if session.serves(tenant, connector)]

    def served(self, tenant: str | None, connector: str) -> bool:
        """Whether there is one."""
        return any(session.serves(tenant, connector) for session in self._routes.get((tenant, connector), ()))

    def routed(self, key: Key) -> Crowd[AgentSession]:
        """Those that announce it, whether they serve it now or not."""
        return self._routes.get(key, _NOBODY)

    def route(self, session: AgentSession) -> list[Key]:
        """Flows for what the session serves now may be opened on it: returns the routes. It has none yet."""
        tenant = session.identity.tenant
        keys: list[Key] = [(tenant, connector) for connector in sorted(session.connectors)]
        for key in keys:
            self._routes.setdefault(key, Crowd()).add(session)
        self._routed[session] = keys
        return keys

    def unroute(self, session: AgentSession) -> list[Key]:
        """None leads to the session any more. Returns those that have nobody left."""
        orphans = []
        for key in self._routed.pop(session, ()):
            sessions = self._routes[key]
            sessions.remove(session)
            if not sessions:
                del self._routes[key]
                orphans.append(key)
        return orphans
