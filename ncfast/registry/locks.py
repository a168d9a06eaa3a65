"""Locks: agents that are shut out of the cluster until a time, whatever token they show.

A lock ends by its time, or because a later word lifts it; never because the registry has forgotten it. So a lifted one
is kept, as such, until the time that it would have ended. Of two words about an agent the later counts, by `stamp`:
microseconds of the wall clock of the hub that said it, and above that of the word it replaces, so that clocks that
differ reorder nothing that anybody has seen.

Whoever can write to the registry can lock an agent out, or lift a lock; nothing here lets anybody in who has no token
that counts. What must hold against the registry too stands in `auth.jwt.deny`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson

MOST = 4096  # words kept; an installation has a handful, and whoever writes to the registry may write any number
LONGEST = 30 * 86_400.0  # seconds: what is to last belongs into auth.jwt.deny
REASON = re.compile(r"[A-Za-z0-9 .,:;_/#@()-]{0,200}")  # what status and log may repeat
AHEAD = 3600.0  # seconds by which another hub's clock is believed to be ahead of ours


@dataclass(frozen=True, slots=True)
class Lock:
    """The last word about an agent. `until` is in unix seconds."""

    key: str  # "tenant/agent_id", as Identity.key
    until: int
    stamp: int
    reason: str = ""
    lifted: bool = False


def lock_body(lock: Lock) -> bytes:
    """The part of a record that scripts do not look into."""
    return orjson.dumps({"until": lock.until, "reason": lock.reason, "lifted": lock.lifted})


def read_lock(key: str, record: bytes) -> Lock | None:
    """``stamp, JSON``, one a line; None for a record that is not as we write it."""
    try:
        stamp, body = record.split(b"\n", 1)
        fields = orjson.loads(body)
        until, reason, number = fields["until"], fields["reason"], int(stamp)
        if type(until) is not int or not isinstance(reason, str):
            return None
        reason = reason if REASON.fullmatch(reason) else ""
        return Lock(key, until, number, reason, fields["lifted"] is True) if "/" in key else None
    except (ValueError, KeyError, TypeError):
        return None


class Locks:
    """The words that this hub knows, and that are not over. `wall_clock` gives unix seconds."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._words: dict[str, Lock] = {}
        self.on_change: Callable[[Lock], None] = lambda lock: None  # a later word about an agent is known

    def __contains__(self, key: str) -> bool:
        return key in self._words and self.get(key) is not None

    def get(self, key: str) -> Lock | None:
        """The lock that is in force for the agent, if there is one."""
        lock = self._words.get(key)
        return lock if lock is not None and not lock.lifted and not self.over(lock) else None

    def in_force(self) -> list[Lock]:
        return [lock for lock in self._words.values() if not lock.lifted and not self.over(lock)]

    def words(self) -> list[Lock]:
        """All that others must know too: those that are lifted as well."""
        return [lock for lock in self._words.values() if not self.over(lock)]

    def over(self, lock: Lock) -> bool:
        """Whether its time has come; or is so far off that nobody of us has said it."""
        now = self._wall_clock()
        return not now < lock.until <= now + 2 * LONGEST

    def believes(self, lock: Lock) -> bool:
        """Whether an honest hub may have said it, and it is not over."""
        return lock.stamp <= (self._wall_clock() + AHEAD) * 1e6 and not self.over(lock)

    def known(self, lock: Lock) -> bool:
        """Whether this word, or a later one, is here."""
        mine = self._words.get(lock.key)
        return mine is not None and mine.stamp >= lock.stamp

    def say(self, key: str, seconds: float, reason: str = "") -> Lock:
        """Locks the agent for so long, from now."""
        return self._say(Lock(key, int(self._wall_clock() + seconds), 0, reason))

    def lift(self, key: str) -> Lock | None:
        """None: it is not locked."""
        lock = self.get(key)
        return self._say(replace(lock, lifted=True)) if lock is not None else None

    def _say(self, lock: Lock) -> Lock:
        old = self._words.get(lock.key)
        lock = replace(lock, stamp=max(int(self._wall_clock() * 1e6), old.stamp + 1 if old is not None else 0))
        self._keep(lock)
        return lock

    def take(self, lock: Lock) -> None:
        """A word of another hub, as the registry has it: believed within bounds that honest hubs keep."""
        crowded = lock.key not in self._words and len(self._words) >= MOST
        if self.believes(lock) and not self.known(lock) and not crowded:
            self._keep(lock)

    def _keep(self, lock: Lock) -> None:
        self._words[lock.key] = lock
        self.on_change(lock)

    def tidy(self) -> list[Lock]:
        """Forgets those that are over, and returns them."""
        ended = [lock for lock in self._words.values() if self.over(lock)]
        for lock in ended:
            del self._words[lock.key]
        return ended
