"""Connecting to whichever of several addresses answers first (RFC 8305, "happy eyeballs").

A literal, and a name whose addresses are known, cost no thread and no task: the socket connects without blocking, and
the loop says when it has. uvloop's `sock_connect` is not used, because it sends even a literal through the thread pool
in which look-ups hang (docs/decisions/0011-names.md).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

Place = tuple[int, tuple[Any, ...]]  # address family, and the address as the socket module has it

ATTEMPT_DELAY = 0.25  # seconds before the next address is tried beside the last one (RFC 8305, section 5)
TRIES = 4  # within the time that the caller has, at least: Redis is given 0.3 s
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
NO_WAY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENETUNREACH})  # of this machine, to that family


async def connect(
    loop: asyncio.AbstractEventLoop, places: Sequence[Place], timeout: float
) -> tuple[socket.socket, Place]:
    """A connected socket, and the place that it is connected to. The others are given up.

    The next place is tried when the last has not answered for `ATTEMPT_DELAY`, or at once when one has failed. It is
    the caller who ends it after `timeout` (seconds); a short one has addresses tried faster. Raises OSError when all
    have failed: the failure that says most.
    """
    attempts = _Attempts(loop, places, min(ATTEMPT_DELAY, timeout / TRIES))
    try:
        won = await attempts.first
    except BaseException:
        attempts.close()
        raise
    place = attempts.open.pop(won)
    attempts.close()
    return won, place


class _Attempts:
    """The sockets that connect to places of one name."""

    def __init__(self, loop: asyncio.AbstractEventLoop, places: Sequence[Place], delay: float) -> None:
        self._loop = loop
        self._left = deque(places)
        self._delay = delay
        self._timer: asyncio.TimerHandle | None = None
        self._failures: list[OSError] = []
        self.open: dict[socket.socket, Place] = {}  # under way, and the first to be connected
        self.first: asyncio.Future[socket.socket] = loop.create_future()
        self._next()

    def _next(self) -> None:
        self._stop_timer()
        while self._left:
            place = self._left.popleft()
            try:
                sock = socket.socket(place[0], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError as exc:
                self._failures.append(exc)
                continue
            self.open[sock] = place
            code = sock.connect_ex(place[1])
            if code == 0:
                self.first.set_result(sock)
                return
            if code in (errno.EINPROGRESS, errno.EINTR):
                self._loop.add_writer(sock, self._ready, sock)
                if self._left:
                    self._timer = self._loop.call_later(self._delay, self._next)
                return
            self._fail(sock, code)
        if not self.open:
            self.first.set_exception(min(self._failures, key=_little_said))

    def _ready(self, sock: socket.socket) -> None:
        self._loop.remove_writer(sock)
        if self.first.done():  # in the same turn of the loop
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            self.first.set_result(sock)
        else:
            self._fail(sock, code)
            self._next()

    def _fail(self, sock: socket.socket, code: int) -> None:
        del self.open[sock]
        sock.close()
        self._failures.append(OSError(code, os.strerror(code)))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Gives up whatever is open."""
        self._stop_timer()
        for sock in self.open:
            self._loop.remove_writer(sock)  # first: a descriptor that is closed may be another connection's by then
            sock.close()
        self.open.clear()


def _little_said(exc: OSError) -> int:
    """The lower, the more a failure says of why there is no connection: we cannot dial at all, or the target's machine
    has answered, rather than that this machine has no way to one family."""
    if exc.errno in OUT_OF_DESCRIPTORS:
        return 0
    if isinstance(exc, ConnectionRefusedError):
        return 1
    return 3 if exc.errno in NO_WAY else 2
