"""What the predecessor does of every hand-over, whether it is a hub or an agent: `ncfast.net.channel` is between it and
its successor."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ncfast.core.errors import NcfastError
from ncfast.net.channel import Channel, Message
from ncfast.net.parcel import Parcel, packed
from ncfast.net.seam import Net

LOOK = 0.01  # seconds between two looks at what is waited for, when nothing is heard


class HandoverFailed(NcfastError):
    """The successor did not take over; this process has everything that it had not taken, and goes on."""


class NoHeritage(NcfastError):
    """This process cannot be the hub, or the agent, that the predecessor is; the text says why."""


class Successor:
    """The process at the other end of the channel, as its predecessor hears and tells it."""

    def __init__(self, net: Net, channel: Channel) -> None:
        self._net = net
        self.channel = channel
        self._on_message: Callable[[str, dict[str, Any]], object]
        self._changed = asyncio.Event()
        self.heard: dict[str, dict[str, Any]] = {}  # what it has said last of each kind
        self.lost = ""  # why it does not take over

    def listen(self, on_message: Callable[[str, dict[str, Any]], object] = lambda kind, body: None) -> None:
        """It is heard from now on."""
        self._on_message = on_message
        self.channel.on_message, self.channel.on_closed = self._hear, self.lose

    def pass_doors(self) -> None:
        """Every socket that listens; they stay ours as well. None may be opened or closed meanwhile."""
        for key, socks in self._net.doors():
            self.channel.send("doors", {"doors": [[key, len(socks)]]}, fds=[sock.fileno() for sock in socks])

    def pass_flows(self, parcels: Sequence[Parcel], **more: Any) -> None:
        """Those of one message. Their sockets stay open until it has them, or is gone."""
        heads, payload, fds = packed(parcels)
        self.channel.send("flows", {"heads": heads, **more}, payload, fds, kept=True)

    async def until(self, done: Callable[[], object], seconds: float = math.inf) -> bool:
        """Whether it comes to that within so many seconds. Raises HandoverFailed when the successor goes first."""
        deadline = self._net.clock() + seconds
        while not done():
            self.check()
            if self._net.clock() >= deadline:
                return False
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._changed.wait()
        return True

    async def says(self, kind: str, seconds: float = math.inf) -> bool:
        """`until` it has said so."""
        return await self.until(lambda: kind in self.heard, seconds)

    def check(self) -> None:
        """Raises HandoverFailed when it does not take over."""
        if self.lost:
            raise HandoverFailed(self.lost)

    def lose(self, reason: str) -> None:
        """It has gone, or is given up."""
        self.lost = self.lost or reason
        self._changed.set()

    def _hear(self, message: Message) -> None:
        message.close()
        if message.kind == "failed":
            self.lose(str(message.body.get("reason")))
        self.heard[message.kind] = message.body
        self._on_message(message.kind, message.body)
        self._changed.set()
