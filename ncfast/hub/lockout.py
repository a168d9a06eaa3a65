"""Agents that are locked out: the lock put in force on what stands.

A lock is told by an operator to one hub, and by the registry to all. Each hub does its own part: flows of its clients
to the agent end, flows of others that it relays too, then the agent's tunnels. Handshakes, opens and resumes ask
`ground.locks` themselves.
"""

from __future__ import annotations

from ncfast.core.errors import NcfastError, Reason
from ncfast.hub.ground import Ground
from ncfast.hub.relays import Relays
from ncfast.hub.sessions import Sessions
from ncfast.hub.steering import Steering
from ncfast.observe import log
from ncfast.registry import DistributedRegistry, Lock
from ncfast.registry.locks import LONGEST

_log = log.get("hub")


class LockRefused(NcfastError):
    """The agent cannot be locked, or is not; the text says why."""


class Lockout:
    """Carries out what `ground.locks` says, and tells it what operators say."""

    def __init__(
        self,
        ground: Ground,
        sessions: Sessions,
        registry: DistributedRegistry,
        steering: Steering,
        relays: Relays,
    ) -> None:
        self._ground = ground
        self._sessions = sessions
        self._registry = registry
        self._steering = steering
        self._relays = relays
        ground.locks.on_change = self._changed
        registry.locks = ground.locks

    # what operators ask

    def kick(self, agent: str, tenant: str | None, seconds: float, reason: str = "") -> Lock:
        """Locks an agent out of the cluster for so long; 0 lifts the lock. Raises LockRefused."""
        key = self._key(agent, tenant)
        if not seconds:
            return self.unlock(agent, tenant)
        if not 0 < seconds <= LONGEST:
            raise LockRefused(f"a lock lasts {LONGEST / 86400:.0f} days at most; for longer there is auth.jwt.deny")
        lock = self._ground.locks.say(key, seconds, reason)
        self._registry.spread(lock)
        return lock

    def unlock(self, agent: str, tenant: str | None) -> Lock:
        """Lifts an agent's lock. Raises LockRefused if it has none."""
        lock = self._ground.locks.lift(self._key(agent, tenant))
        if lock is None:
            raise LockRefused(f"{agent} is not locked")
        self._registry.spread(lock)
        return lock

    def knows(self, key: str) -> bool:
        """Whether such an agent is in the cluster, as far as this hub sees."""
        return bool(self._sessions.of(key)) or self._registry.view.agent(key) is not None

    def _key(self, agent: str, tenant: str | None) -> str:
        """Of an id alone the agent that has it, if that is one; it may be nowhere at the moment."""
        if tenant is not None:
            return f"{tenant}/{agent}"
        if "/" in agent:
            return agent
        known = {session.key for session in self._sessions} | self._registry.view.agents.keys()
        known |= {lock.key for lock in self._ground.locks.in_force()}
        named = sorted(key for key in known if key.partition("/")[2] == agent)
        if len(named) > 1:
            raise LockRefused(f"{agent} is in several tenants: {', '.join(named)}")
        return named[0] if named else f"/{agent}"

    # what comes of it

    def _changed(self, lock: Lock) -> None:
        tenant, _, agent_id = lock.key.partition("/")
        log.security(
            "agent_unlocked" if lock.lifted else "agent_locked",
            agent_id=agent_id,
            tenant=tenant or None,
            until=lock.until,
        )
        if not lock.lifted:
            self.end(lock.key, "locked out")

    def end(self, key: str, why: str) -> None:
        """Ends the agent's flows, and its tunnels here."""
        for flow in list(self._steering.flows_of(key)):
            flow.reset(Reason.AGENT_LOCKED)
        for session in self._sessions.of(key):
            self._relays.locked(session)
            self._ground.net.call_soon(session.link.fail, Reason.AGENT_LOCKED, why)  # when the resets have left

    def tick(self) -> None:
        """Forgets what is over, about twice a second."""
        for lock in self._ground.locks.tidy():
            if not lock.lifted:
                _log.info("agent_lock_ended", agent_id=lock.key.partition("/")[2])
