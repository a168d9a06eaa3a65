"""Locks in Redis: what this hub knows and what Redis has are made the same, with each beat and at each hint.

What Redis has and we do not is taken in; what we know and Redis does not, or has an earlier word of, is written. So a
lock that was taken while Redis was away gets there when it is back, and one that Redis has lost is there again; what
counts is in `ncfast.registry.locks`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ncfast.registry.locks import Lock, Locks, lock_body, read_lock
from ncfast.registry.redis.backend import Call
from ncfast.registry.redis.scripts import FORGET_LOCK, LOCK, LOCKS

Send = Callable[[Call], "asyncio.Future[Any] | None"]  # None: Redis is away


class LockExchange:
    """One look at a time, and another after it if something has happened meanwhile."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._looking = False
        self._again = False

    def write(self, lock: Lock) -> None:
        """A word of ours."""
        self._send(Call(LOCK, (lock.key, str(lock.stamp), lock_body(lock))))

    def look(self, locks: Locks | None) -> None:
        """Reads what Redis has, and settles what differs."""
        if locks is None:
            return
        if self._looking:
            self._again = True
            return
        future = self._send(Call(LOCKS))
        if future is not None:
            self._looking = True
            future.add_done_callback(lambda done: self._looked(locks, done))

    def _looked(self, locks: Locks, done: asyncio.Future[Any]) -> None:
        self._looking = False
        if done.cancelled() or done.exception() is not None:
            return
        reply = done.result()
        self._settle(locks, reply if isinstance(reply, list) else [])
        if self._again:
            self._again = False
            self.look(locks)

    def _settle(self, locks: Locks, reply: list[bytes]) -> None:
        theirs: dict[str, Lock] = {}
        for name, record in zip(reply[::2], reply[1::2], strict=False):
            lock = read_lock(name.decode(errors="replace"), record)
            if lock is None or not locks.believes(lock):
                self._send(Call(FORGET_LOCK, (name, record)))
            else:
                theirs[lock.key] = lock
                locks.take(lock)
        for mine in locks.words():
            if mine.key not in theirs or theirs[mine.key].stamp < mine.stamp:
                self.write(mine)
