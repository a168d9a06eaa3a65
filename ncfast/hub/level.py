"""Levelling: a hub that has more agents than its share asks some of them to move to hubs that have less.

The agent moves as when a hub drains, without a byte lost: it has a tunnel at the new hub before it claims there, and
leaves the old one when the new epoch is there. How many belong where is computed in `shares`. Here is who is asked, and
when:

 1. Only while the registry is healthy, the mode is active, and neither this hub nor the other drains.
 2. Only to a hub to which a link is up: flows of our clients go by it afterwards.
 3. `moves_per_sec` at most. Who was asked counts as given until the view shows that it has gone, so that a late view
    makes nobody ask twice.
 4. Nobody who has come here within `rest_sec`, and nobody who would not, or could not, move within five times that.
 5. Nobody who has not said that it moves: agents of older versions, and those without a standby.
 6. Those with the fewest flows first, and none whose tunnel is full: what is on its way would have to go again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from heapq import nsmallest
from math import inf

from ncfast.core.bucket import Bucket
from ncfast.core.errors import NcfastError
from ncfast.hub.ground import Ground
from ncfast.hub.session import AgentSession
from ncfast.hub.sessions import Sessions
from ncfast.hub.shares import row, shares, too_many
from ncfast.hub.ways import Ways
from ncfast.observe import log
from ncfast.observe.readiness import State
from ncfast.registry import DistributedRegistry

_log = log.get("level")

LOOK = 2.0  # seconds between two looks at the shares
# seconds after which an agent that was asked and has not moved is given up: it gives up itself after 60
PATIENCE = 75.0
EVENTS = {"done": "move_done", "refused": "move_refused", "expired": "move_expired"}  # by what came of a move
STUBBORN = 5.0  # times `rest_sec` for which an agent that has not moved is left alone


class MoveRefused(NcfastError):
    """An agent cannot be asked to move there; the text says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An agent on its way."""

    session: AgentSession
    replica_id: str  # where to
    at: float


class Level:
    """One room of a hub: `tick` looks, `move` is an operator's word."""

    def __init__(self, ground: Ground, sessions: Sessions, registry: DistributedRegistry, ways: Ways) -> None:
        self._ground = ground
        self._sessions = sessions
        self._registry = registry
        self._ways = ways
        self._asked: dict[str, Asked] = {}  # by the agent's key
        self._resting: dict[str, float] = {}  # by key, until when one that has not moved is left alone
        self._bucket = Bucket(1.0, ground.clock())
        self._look_at = ground.clock() + LOOK
        self.begun = False  # agents are asked to move
        self.share: int | None = None  # agents that this hub is to have; None where nothing is levelled

    # what the timer asks

    def tick(self, now: float) -> None:
        """About twice a second."""
        config = self._ground.config.ha.level
        if config.weight != self._registry.replica.weight:
            self._registry.set_weight(config.weight)
        self._settle(now)
        if now < self._look_at:
            return
        self._look_at = now + LOOK
        me = self._ground.replica_id
        agents = self._agents() if config.enabled and self._possible() else Counter()
        share = shares(agents, self._weights())
        self.share = share.get(me)
        begun = me in share and too_many(agents[me], share[me], self.begun) > 0
        if begun != self.begun:
            self.begun = begun
            _log.info("level_begun" if begun else "level_ended", agents=agents[me], share=self.share)
        if begun:
            self._ask(row(me, agents, share), now)

    def _possible(self) -> bool:
        """Rule 1."""
        return self._ways.active and self._ground.readiness.state is State.SERVING and self._registry.is_healthy()

    def _weights(self) -> dict[str, int]:
        """Of the hubs that take agents, by name."""
        return {one.replica_id: one.weight for one in self._registry.view.replicas.values() if not one.draining}

    def _agents(self) -> Counter[str]:
        """How many each of these hubs has, all from one view, so that nobody is counted twice."""
        view = self._registry.view
        live = {one.instance: one.replica_id for one in view.replicas.values() if not one.draining}
        counted = Counter(dict.fromkeys(live.values(), 0))
        counted.update(live[entry.owner_instance] for entry in view.agents.values() if entry.owner_instance in live)
        return counted

    def _ask(self, given: dict[str, int], now: float) -> None:
        """Asks as many as may be asked now: rules 2 to 6."""
        config = self._ground.config.ha.level
        for asked in self._asked.values():
            if asked.replica_id in given:
                given[asked.replica_id] -= 1
        where = [name for name, count in given.items() if self._ways.peer(name) is not None for _ in range(count)]
        burst = max(1.0, config.moves_per_sec * LOOK)
        rested = (one for one in self._sessions if self._may_move(one, now - config.rest_sec, now))
        ready = nsmallest(min(len(where), int(burst)), rested, key=lambda one: (one.load, one.key))
        for session, name in zip(ready, where, strict=False):
            if not self._bucket.take(config.moves_per_sec, burst, now):
                break
            self._send(session, name, now)

    def _may_move(self, session: AgentSession, before: float, now: float) -> bool:
        """Rules 4 to 6; `before` is when it must have come at the latest."""
        return (
            session.owns
            and session.moves
            and not session.draining
            and session.owned_since <= before
            and session.link.writable
            and session.key not in self._asked
            and self._resting.get(session.key, now) <= now
        )

    def _send(self, session: AgentSession, replica_id: str, now: float) -> None:
        if session.key in self._asked:  # and by hand again
            self._over(session.key, "expired")
        self._asked[session.key] = Asked(session, replica_id, now)
        self._ground.stats.level_moves["asked"] += 1
        _log.info("move_asked", agent_id=session.agent_id, to=replica_id, flows=session.load)
        session.ask_to_move(replica_id)

    # what an operator asks

    def move(self, agent: str, hub: str | None) -> str:
        """Asks an agent ("tenant/agent_id", or the id alone) to move to a hub, or to the one with the fewest for its
        weight. Rests and shares do not matter. Returns the hub; raises MoveRefused."""
        session = self._sessions.current(agent if "/" in agent else f"/{agent}")
        if session is None or not session.owns:
            entry = self._registry.view.agent(agent if "/" in agent else f"/{agent}")
            raise MoveRefused(f"{agent} is owned by {entry.owner}: ask there" if entry else f"no agent {agent}")
        if not session.moves:
            raise MoveRefused(f"{agent} does not move: it keeps no standby, or is of an older version")
        if not self._possible():
            raise MoveRefused("not now: the mode is not active, this hub drains, or the registry is away")
        me, agents, weights = self._ground.replica_id, self._agents(), self._weights()
        others = {name for name in weights if name != me and self._ways.peer(name) is not None}
        if hub is None:
            if not others:
                raise MoveRefused("no other hub takes agents")
            hub = min(sorted(others), key=lambda name: agents[name] / weights[name] if weights[name] else inf)
        if hub not in others:
            raise MoveRefused(f"{agent} cannot move to {hub}: it is this hub, or unknown, or drains, or has no link")
        self._send(session, hub, self._ground.clock())
        return hub

    # what comes of it

    def stays(self, session: AgentSession, replica_id: str) -> None:
        """The agent has answered that it does not get there."""
        if self.moves_to(session, replica_id):
            self._over(session.key, "refused")

    def moves_to(self, session: AgentSession, replica_id: str) -> bool:
        """Whether the agent has been asked to move there, and is on its way."""
        asked = self._asked.get(session.key)
        return asked is not None and asked.session is session and asked.replica_id == replica_id

    @property
    def under_way(self) -> int:
        """Agents that have been asked, and of which it is not known what came of it."""
        return len(self._asked)

    def _settle(self, now: float) -> None:
        """Those who have moved, or gone, or not answered."""
        for key, asked in list(self._asked.items()):
            entry = self._registry.view.agent(key)  # None for a moment, between our release and the other's claim
            if entry is not None and entry.owner == asked.replica_id:
                self._over(key, "done")
            elif now - asked.at >= PATIENCE or (entry is not None and entry.epoch > asked.session.epoch):
                self._over(key, "expired")
        self._resting = {key: until for key, until in self._resting.items() if until > now}

    def _over(self, key: str, outcome: str) -> None:
        asked = self._asked.pop(key)
        now = self._ground.clock()
        if outcome != "done":
            self._resting[key] = now + STUBBORN * self._ground.config.ha.level.rest_sec
        self._ground.stats.level_moves[outcome] += 1
        _log.info(
            EVENTS[outcome],
            agent_id=asked.session.agent_id,
            to=asked.replica_id,
            duration_sec=round(now - asked.at, 3),
        )
