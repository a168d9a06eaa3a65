"""An upgrade, from the side of the process that was started for it: it takes the place of its parent.

Only a process that a hub or an agent has started itself gets anything: the descriptor that `HANDOVER` names must be one
end of a pair of Unix sockets that our parent has made, as the kernel says. `ncfast.serve.upgrade` has the other side.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Protocol

from ncfast import __version__
from ncfast.core.errors import NcfastError
from ncfast.core.record import FORMAT
from ncfast.net.channel import Channel, Message
from ncfast.net.peercred import pid_of
from ncfast.net.seam import OWN_DESCRIPTORS, Net
from ncfast.observe import log

HANDOVER = "NCFAST_HANDOVER"  # the number of the descriptor, in the environment
DEATH_SEC = 1.0  # for a predecessor that has closed its end to be seen dead: the kernel does both in one go
BEAT_SEC = 0.5  # between two words that we live, until the predecessor is over
_LOOK = 0.005  # seconds between two looks


class NotOurs(NcfastError):
    """Who has started this process, or has gone since, is nobody to inherit from."""


class TooFew(NcfastError):
    """There are not descriptors enough for what is to be handed over."""


class Taker(Protocol):
    """A hub or an agent that takes over: it replaces `on_message` and `on_closed` of the channel."""

    def take_over(self, channel: Channel) -> None: ...


def summoned(environment: MutableMapping[str, str] = os.environ) -> int | None:
    """The descriptor that was left to us, if we are a successor; no program that we start shall see it. Raises
    NotOurs."""
    said = environment.pop(HANDOVER, None)
    if said is None:
        return None
    try:
        descriptor = int(said)
        os.set_inheritable(descriptor, False)
        maker = pid_of(descriptor)
    except (ValueError, OSError):
        maker = None
    if maker is None or maker != os.getppid():
        raise NotOurs(f"{HANDOVER} is set, and does not name a socket of the process that has started this one")
    return descriptor


class Heir:
    """Of one process. `over` is set when the predecessor has gone, be it in the middle."""

    def __init__(self, net: Net, descriptor: int) -> None:
        self._net = net
        self._parent = os.getppid()
        self._doors: list[tuple[str, list[socket.socket]]] = []
        self._heritage: asyncio.Future[dict[str, Any]] = net.loop.create_future()
        self._taker: Callable[[Message], object] | None = None
        self._ended: Callable[[str], object] = lambda reason: None
        self._early: list[Message] = []
        self._bound = asyncio.Event()  # there is somebody who takes over
        self._complete = False
        self.standing: dict[str, Any] = {"id": "", "state": "passing", "reason": ""}
        self.has_parent = False
        self.on_main: Callable[[], object] = lambda: None  # it is we who tell the supervisor the rest
        self.on_reload: Callable[[], object] = lambda: None
        self.on_stop: Callable[[bool], object] = lambda at_once: None
        self.over = asyncio.Event()
        self.channel = Channel(net, net.inherited(descriptor), self._hear, self._lose)

    async def heritage(self) -> dict[str, Any]:
        """Says that we are ready, and returns what the predecessor tells of itself; its doors are ours to open then.
        Raises NotOurs when it goes instead, and TooFew."""
        self.channel.send("ready", {"formats": [FORMAT], "version": __version__, "pid": os.getpid()})
        said = await self._heritage
        self._net.spawn(self._beat(), "beat")
        needed = OWN_DESCRIPTORS + said.get("sockets", 0)
        if needed > self._net.fd_limit:
            raise TooFew(f"it may have {self._net.fd_limit} descriptors, and needs {needed}")
        self._net.share("predecessor", True)  # until it is over: it may have to go on
        self._net.inherit(self._doors)
        return said

    def take_over(self, taker: Taker) -> None:
        """All is bound."""
        taker.take_over(self.channel)
        self._taker, self._ended = self.channel.on_message, self.channel.on_closed
        self.channel.on_message, self.channel.on_closed = self._hear, self._lose
        early, self._early = self._early, []
        for message in early:
            self._hear(message)
        self._bound.set()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Tells the predecessor why we cannot be the successor, if what is done inside fails."""
        try:
            yield
        except (NcfastError, OSError) as exc:
            self.channel.send("failed", {"reason": (isinstance(exc, OSError) and exc.strerror) or str(exc)})
            raise

    async def _beat(self) -> None:
        while not self.over.is_set() and not self.channel.closed:
            self.channel.send("alive", {})
            await asyncio.sleep(BEAT_SEC)

    def _hear(self, message: Message) -> None:
        match message.kind:
            case "upgrade":
                body = dict(message.body)
                self.has_parent = body.pop("has_parent")
                self.standing = body
            case "doors":
                left = list(message.fds)
                for key, count in message.body["doors"]:
                    self._doors.append((key, [self._net.inherited(left.pop(0)) for _ in range(count)]))
            case "heritage":
                self._heritage.set_result(message.body)
            case "main":
                self._complete = True
            case "reload" | "stop" if self._taker is None:
                self._early.append(message)
            case "reload":
                self.on_reload()
            case "stop":
                self.on_stop(message.body["at_once"])
            case _ if self._taker is None:
                self._early.append(message)
            case _:
                self._complete = self._complete or message.kind == "over"
                self._taker(message)
        if self._complete and not self.over.is_set():
            self.standing["state"] = "done"

    def _lose(self, reason: str) -> None:
        if not self._heritage.done():
            self._heritage.set_exception(NotOurs(f"the process that this one was to succeed has given up: {reason}"))
            return
        if self._complete:
            self._end(reason)
        else:
            self._net.spawn(self._outlive(reason), "outlive")

    async def _outlive(self, reason: str) -> None:
        """Goes on alone if the predecessor has died. If it lives, it has given us up, and serves on: we end."""
        deadline = self._net.clock() + DEATH_SEC
        while os.getppid() == self._parent:
            if self._net.clock() >= deadline:
                log.flush()
                os._exit(1)  # an orderly end would tell agents and the registry that the hub goes
            await asyncio.sleep(_LOOK)
        await self._bound.wait()
        told = {"state": "cut", "reason": "the predecessor died: what it had not passed has ended with it"}
        self.standing |= told
        self._end(reason)

    def _end(self, reason: str) -> None:
        self._ended(reason)
        self.on_main()
        self._net.share("predecessor", False)
        self._net.close_unclaimed()
        self.over.set()
