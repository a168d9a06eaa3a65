"""Names to addresses, so that one that hangs holds up nothing but itself.

`getaddrinfo` blocks, for as long as resolv.conf says, and cannot be called off. So each look-up has a thread of its
own, and each name at most one look-up: who asks meanwhile joins it. Look-ups of one share (`target`, `hub`, ...) take
no thread of another's. What was last answered is used on while the next answer does not come.

Why not c-ares, and where the numbers are from: docs/decisions/0011-names.md.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Literal

from ncfast.net.connect import Place
from ncfast.observe import log

Share = Literal["target", "hub", "peer", "redis", "keys"]  # what a name is looked up for
OUTCOMES = (  # what is counted
    "answered",
    "failed",
    "hung",  # longer than `HANGS_SEC`; it ends as one of the others
    "kept",  # not a look-up's outcome, but a dial's, which took an older answer
)

AT_ONCE = 32  # look-ups of a share; a thread each, and a socket or two
FRESH_SEC = (
    1.0  # an answer is used as it is: no one waits for a change of a second, and a busy name costs a thread less
)
PATIENCE_SEC = 0.5  # from a look-up's start, until what is kept is used in its place; half a dial's time at most
HANGS_SEC = 2.0  # after which the log tells of it; longer than a resolver's answer over a far link
KEPT_SEC = 3600.0  # how old a kept answer may be: longer than most outages, shorter than addresses change hands
PREFER_SEC = 600.0  # an address that answered where the first did not is tried first (RFC 6555, section 4.2)
NAMES_MAX = 1024  # answers kept; the configuration has fewer names, but a registry may bring ever new ones
NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})  # musl has no NODATA

_log = log.get("net")


def literal(host: str, port: int) -> list[Place]:
    """The address, if `host` is one: no file is read and nobody asked for it. Else nothing."""
    if _is_ipv4(host):
        return [(socket.AF_INET, (host, port))]
    if ":" not in host:
        return []
    try:  # there may be a zone behind it
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        return []
    return [(family, where) for family, *_, where in found]


@lru_cache(NAMES_MAX)
def _is_ipv4(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return False
    return True


def interleaved(places: Iterable[Place]) -> list[Place]:
    """The resolver's order, but family about (RFC 8305, section 4): one family's outage costs one attempt."""
    families: defaultdict[int, list[Place]] = defaultdict(list)
    for place in dict.fromkeys(places):
        families[place[0]].append(place)
    turns = itertools.zip_longest(*families.values())
    return [place for turn in turns for place in turn if place is not None]


class _Name:
    """One name of one share: its last answer, and the look-up under way."""

    __slots__ = ("answered", "asking", "ended", "error", "failing", "good", "good_until", "host", "places", "share")

    def __init__(self, share: Share, host: str) -> None:
        self.share = share
        self.host = host
        self.places: list[Place] = []  # with port 0
        self.answered = 0.0  # when they came
        self.ended = 0.0  # when a look-up last ended, in whatever way
        self.error: OSError | None = None  # how the last one failed
        self.failing = False  # it failed, or hung
        self.asking: _LookUp | None = None
        self.good: Place | None = None  # answered where the first did not
        self.good_until = 0.0


class _LookUp:
    """One question under way. `over` is set when it has ended; the outcome is with its name."""

    __slots__ = ("hung", "over", "since", "timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, since: float) -> None:
        self.since = since
        self.over: asyncio.Future[None] = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None
        self.hung = False


class Names:
    """The addresses of names, as the system's `getaddrinfo` has them: /etc/hosts, nsswitch, search domains.

    `clock()` gives monotonic seconds. `counts` says how look-ups ended, for each share that has had one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._names: dict[tuple[Share, str], _Name] = {}
        self._running: Counter[Share] = Counter()
        self._waiting: defaultdict[Share, deque[_Name]] = defaultdict(deque)
        self.counts: defaultdict[Share, dict[str, int]] = defaultdict(lambda: dict.fromkeys(OUTCOMES, 0))

    def known(self, share: Share, host: str, port: int) -> list[Place]:
        """Where `host` is, in the order in which to try, if nobody need wait for it: the last answer is fresh, or a
        better one is not to be expected, and asked for all the same. Else nothing."""
        name = self._names.get((share, host))
        if name is None or not self._kept(name):
            return []
        if self._clock() - name.ended >= FRESH_SEC:
            if not name.failing:
                return []
            if name.asking is None:
                self._start(name)
        if name.failing:
            self.counts[share]["kept"] += 1
        return self._places(name, port)

    async def find(self, share: Share, host: str, port: int, timeout: float) -> list[Place]:
        """What is known of `host`, or what the next answer says. Raises OSError. It is the caller who gives up after
        `timeout` (seconds); the look-up goes on."""
        places = self.known(share, host, port)
        if places:
            return places
        name = self._names.get((share, host))
        if name is None:
            name = self._names[share, host] = _Name(share, host)
        await self._ask(name, min(PATIENCE_SEC, timeout / 2))
        return self._places(name, port)

    def worked(self, share: Share, host: str, place: Place) -> None:
        """`place` of the name answered, and a place before it did not."""
        name = self._names.get((share, host))
        if name is not None:
            family, where = place
            name.good = family, (where[0], 0, *where[2:])
            name.good_until = self._clock() + PREFER_SEC

    def _kept(self, name: _Name) -> bool:
        return bool(name.places) and self._clock() - name.answered < KEPT_SEC

    def _places(self, name: _Name, port: int) -> list[Place]:
        places, good = name.places, name.good
        if good is not None and good in places and self._clock() < name.good_until:
            places = [good, *(place for place in places if place != good)]
        return [(family, (where[0], port, *where[2:])) for family, where in places]

    async def _ask(self, name: _Name, patience: float) -> None:
        """Returns when the name has places to use. Raises OSError."""
        look_up = name.asking or self._start(name)
        if self._kept(name):
            patience = look_up.since + patience - self._clock()
            if patience > 0:
                await asyncio.wait((look_up.over,), timeout=patience)
            if not look_up.over.done() or name.error is not None and self._kept(name):
                self.counts[name.share]["kept"] += 1
                return
        else:
            await asyncio.wait((look_up.over,))
        if name.error is not None:
            raise type(name.error)(*name.error.args)  # each its own: a traceback is no place to meet

    # a look-up's life

    def _start(self, name: _Name) -> _LookUp:
        look_up = name.asking = _LookUp(self._loop, self._clock())
        look_up.timer = self._loop.call_later(HANGS_SEC, self._hangs, name, look_up)
        if self._running[name.share] < AT_ONCE:
            self._run(name)
        else:
            self._waiting[name.share].append(name)
        return look_up

    def _run(self, name: _Name) -> None:
        self._running[name.share] += 1
        # A daemon: one that hangs does not hold up the process's end.
        thread = threading.Thread(target=self._look_up, args=(name,), name="look-up", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread for us
            self._loop.call_soon(self._ended, name, [], OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))

    def _look_up(self, name: _Name) -> None:
        """In a thread."""
        places: list[Place] = []
        error: OSError | None = None
        try:
            found = socket.getaddrinfo(name.host, 0, type=socket.SOCK_STREAM)
            places = interleaved((family, where) for family, *_, where in found)
        except OSError as exc:
            error = exc.with_traceback(None)
        except ValueError:  # a label that is empty, or too long for the codec
            error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        try:
            self._loop.call_soon_threadsafe(self._ended, name, places, error)
        except RuntimeError:  # the loop is closed: nobody waits
            pass

    def _hangs(self, name: _Name, look_up: _LookUp) -> None:
        look_up.hung = name.failing = True
        self.counts[name.share]["hung"] += 1
        age = round(self._clock() - name.answered) if self._kept(name) else None
        _log.warning("name_hangs", host=name.host, share=name.share, kept_sec=age)

    def _ended(self, name: _Name, places: list[Place], error: OSError | None) -> None:
        now, look_up = self._clock(), name.asking
        assert look_up is not None
        assert look_up.timer is not None
        look_up.timer.cancel()
        if look_up.hung and error is None:
            _log.info("name_answers", host=name.host, share=name.share, duration_sec=round(now - look_up.since, 1))
        self.counts[name.share]["failed" if error else "answered"] += 1
        name.asking, name.ended, name.error, name.failing = None, now, error, error is not None
        if error is None:
            name.places, name.answered = places, now
        elif error.errno in NO_SUCH_NAME:
            name.places = []  # an answer, too: what it was is no longer true
        look_up.over.set_result(None)
        if not self._kept(name):
            self._names.pop((name.share, name.host), None)
        elif len(self._names) > NAMES_MAX:
            self._forget_one()
        self._running[name.share] -= 1
        if self._waiting[name.share]:
            self._run(self._waiting[name.share].popleft())

    def _forget_one(self) -> None:
        idle = [key for key, name in self._names.items() if name.asking is None]
        del self._names[min(idle, key=lambda key: self._names[key].ended)]
