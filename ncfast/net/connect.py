"""Connecting to whichever of several addresses answers first (RFC 8305, "happy eyeballs").

A socket connects without blocking, and the loop says when it has: no thread, no task. uvloop's `sock_connect` is not
used, because it sends even a literal through the thread pool in which look-ups hang (docs/decisions/0011-names.md).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from ncfast.net.syscalls import Dialled

Place = tuple[int, tuple[Any, ...]]  # address family, and the address as the socket module has it
# the connected socket and where it leads; or the failure that says most
Outcome = tuple[socket.socket | Dialled, Place] | OSError

ATTEMPT_DELAY = 0.25  # seconds before the next address is tried beside the last one (RFC 8305, section 5)
TRIES = 4  # within the time that the caller has, at least: Redis is given 0.3 s
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
NO_WAY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENETUNREACH})  # of this machine, to that family
UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EINTR})
CONNECTED = frozenset({0, errno.EISCONN})
_UNBLOCKED = socket.SOCK_STREAM | socket.SOCK_NONBLOCK  # what a descriptor is already


class Attempts:
    """The sockets that connect to places of one name.

    The next place is tried when the last has not answered for `ATTEMPT_DELAY`, or at once when one has failed.
    `done(outcome)` is called once, perhaps before `start` returns, and not after `close`. It is the caller who gives up
    after `timeout` (seconds); a short one has places tried faster. A `bare` outcome has no Python socket.
    """

    __slots__ = ("_bare", "_done", "_failures", "_loop", "_open", "_places", "_timeout", "_timer", "_tried")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        places: Sequence[Place],
        timeout: float,
        done: Callable[[Outcome], None],
        bare: bool = False,
    ) -> None:
        self._loop = loop
        self._bare = bare
        self._places = places
        self._tried = 0
        self._timeout = timeout
        self._done = done
        self._timer: asyncio.TimerHandle | None = None
        self._failures: list[OSError] = []
        self._open: dict[Dialled, Place] = {}  # under way

    def start(self) -> None:
        """Tries the next place."""
        if self._timer is not None:
            self._stop_timer()
        while self._tried < len(self._places):
            place = self._places[self._tried]
            self._tried += 1
            try:
                sock = Dialled(*place)
            except OSError as exc:
                self._failures.append(exc.with_traceback(None))
                continue
            code = sock.connect()
            if code == errno.EINPROGRESS and _is_here(place):  # the answer has come meanwhile, and needs no poll
                code = sock.connect()
            if code in CONNECTED:
                self._won(sock, place)
                return
            if code in UNDER_WAY:
                self._open[sock] = place
                self._loop.add_writer(sock, self._ready, sock)
                if self._tried < len(self._places):
                    self._timer = self._loop.call_later(min(ATTEMPT_DELAY, self._timeout / TRIES), self.start)
                return
            self._fail(sock, code)
        if not self._open:
            self._done(min(self._failures, key=_little_said))

    def _ready(self, sock: Dialled) -> None:
        place = self._open.pop(sock)
        self._loop.remove_writer(sock)
        code = sock.error()
        if code == 0:
            self._won(sock, place)
        else:
            self._fail(sock, code)
            self.start()

    def _won(self, sock: Dialled, place: Place) -> None:
        if self._open or self._timer is not None:
            self.close()
        self._done((sock if self._bare else socket.socket(place[0], _UNBLOCKED, 0, sock.detach()), place))

    def _fail(self, sock: Dialled, code: int) -> None:
        sock.close()
        self._failures.append(OSError(code, os.strerror(code)))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Gives up what is under way."""
        self._stop_timer()
        for sock in self._open:
            self._loop.remove_writer(sock)  # first: a descriptor that is closed may be another connection's by then
            sock.close()
        self._open.clear()


def _is_here(place: Place) -> bool:
    """Whether the place is of this machine, whose kernel answers a SYN before `connect` returns."""
    host: str = place[1][0]
    return host.startswith("127.") or host == "::1"


def _little_said(exc: OSError) -> int:
    """The lower, the more a failure says of why there is no connection: we cannot dial at all, or the target's machine
    has answered, rather than that this machine has no way to one family."""
    if exc.errno in OUT_OF_DESCRIPTORS:
        return 0
    if isinstance(exc, ConnectionRefusedError):
        return 1
    return 3 if exc.errno in NO_WAY else 2
