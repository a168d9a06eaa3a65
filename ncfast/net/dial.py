"""A connection on its way: the look-up if there is a name to look up, the addresses, the deadline.

By callback. To a literal, and to a name whose addresses are known, it costs neither task nor thread; to what is on this
machine it stands when `start` returns, and has not been polled for.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ncfast.net.connect import Attempts, Outcome, Place
from ncfast.net.names import Names, Share, literal
from ncfast.net.syscalls import Dialled


class _Net(Protocol):
    loop: asyncio.AbstractEventLoop
    names: Names

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str, /) -> asyncio.Task[Any]: ...


class Dial:
    """Dials `host:port` within `timeout` seconds, by whichever of its addresses answers first.

    `done(outcome)` is called once, with the connected socket or with the OSError that tells why there is none; perhaps
    before `start` returns, and not after `cancel`. `share` says what for: names that hang hold up others of their own
    share at most. An address that `admit` does not take is not tried. Of a `bare` one the outcome is no Python socket,
    but what `Net.adopt_end` wants.
    """

    __slots__ = (
        "_admit",
        "_attempts",
        "_bare",
        "_done",
        "_host",
        "_look_up",
        "_net",
        "_places",
        "_port",
        "_share",
        "_timeout",
        "_timer",
    )

    def __init__(
        self,
        net: _Net,
        host: str,
        port: int,
        done: Callable[[Any], None],
        *,
        timeout: float,
        share: Share,
        admit: Callable[[str], bool] | None = None,
        bare: bool = False,
    ) -> None:
        self._net = net
        self._host = host
        self._port = port
        self._done: Callable[[Any], None] | None = done
        self._timeout = timeout
        self._share = share
        self._admit = admit
        self._bare = bare
        self._places: list[Place] = []
        self._attempts: Attempts | None = None
        self._look_up: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        try:
            places = literal(self._host, self._port) or self._net.names.known(self._share, self._host, self._port)
            if places:
                self._attempt(places)
            else:
                self._look_up = self._net.spawn(self._find(), "look_up")
            if self._done is not None:
                self._timer = self._net.loop.call_later(self._timeout, self._end, TimeoutError())
        except BaseException:  # a defect: the caller hears of it here, and is not called as well
            self.cancel()
            raise

    def cancel(self) -> None:
        """Gives up; nothing is left open. Of no effect when `done` has been called."""
        self._done = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._look_up is not None:
            self._look_up.cancel()
            self._look_up = None
        if self._attempts is not None:
            self._attempts.close()
            self._attempts = None

    async def _find(self) -> None:
        try:
            places = await self._net.names.find(self._share, self._host, self._port, self._timeout)
        except OSError as exc:
            self._look_up = None  # is this task, which is over: nothing to cancel
            self._end(exc.with_traceback(None))
        else:
            self._look_up = None
            self._attempt(places)

    def _attempt(self, places: list[Place]) -> None:
        if self._admit is not None:
            places = [place for place in places if self._admit(place[1][0])]
            if not places:
                self._end(OSError(errno.EACCES, "the address is not allowed"))
                return
        self._places = places
        self._attempts = Attempts(self._net.loop, places, self._timeout, self._attempted, self._bare)
        self._attempts.start()

    def _attempted(self, outcome: Outcome) -> None:
        self._attempts = None  # nothing of it is open
        if isinstance(outcome, OSError):
            self._end(outcome)
            return
        sock, place = outcome
        if place != self._places[0]:
            self._net.names.worked(self._share, self._host, place)
        self._end(sock)

    def _end(self, outcome: socket.socket | Dialled | OSError) -> None:
        done = self._done
        assert done is not None
        self.cancel()
        done(outcome)


class _Cancellable(Protocol):
    def cancel(self) -> None: ...


async def waited_for(
    loop: asyncio.AbstractEventLoop, start: Callable[[Callable[[socket.socket | OSError], None]], _Cancellable | None]
) -> socket.socket:
    """The connected socket of the dial that `start(done)` begins, for who waits in a task. Raises OSError."""
    ended: asyncio.Future[socket.socket | OSError] = loop.create_future()

    def done(outcome: socket.socket | OSError) -> None:
        if not ended.done():
            ended.set_result(outcome)
        elif not isinstance(outcome, OSError):  # given up in the same turn of the loop
            outcome.close()

    dial = start(done)
    try:
        outcome = await ended
    except asyncio.CancelledError:
        if dial is not None:
            dial.cancel()
        if not ended.cancelled() and not isinstance(unclaimed := ended.result(), OSError):
            unclaimed.close()
        raise
    if isinstance(outcome, OSError):
        raise outcome
    return outcome
