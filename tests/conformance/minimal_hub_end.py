"""The minimal hub's end of a flow: a client's socket."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from conformance.minimal_end import WINDOW, End
from ncfast._frames import FrameType
from ncfast.core.errors import Reason
from ncfast.core.opening import Opening

if TYPE_CHECKING:
    from conformance.minimal_hub import MinimalHub, Tunnel

F = FrameType


class Flow(End):
    """The hub's end."""

    LOST = Reason.CLIENT_RESET
    side: MinimalHub

    def __init__(self, hub: MinimalHub, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(hub, os.urandom(16), os.urandom(16), 0)
        self.reader, self.writer = reader, writer
        self.tunnel: Tunnel | None = None
        self.agent = self.instance = ""
        self.opened = self.attached = False
        self.asked_at = 0.0

    async def serve(self) -> None:
        await self.read(self.reader)

    @property
    def limit(self) -> int:
        return 1 << 40 if "does not bound what is sent to it" in self.side.faults else super().limit

    def tell(self, type: F, **fields: Any) -> None:
        if self.tunnel is not None:
            self.tunnel.send(type, cid=self.cid, **fields)

    def open_on(self, tunnel: Tunnel) -> None:
        """M_OPEN, and what the client has said already."""
        faults = self.side.faults
        if self.agent and "opens again with another secret" in faults:
            self.secret = os.urandom(16)
        self.go(tunnel)
        self.agent, self.instance = tunnel.agent, tunnel.instance
        self.credit = max(self.credit, tunnel.window)
        assert self.writer is not None
        host, port = self.writer.get_extra_info("peername")
        ends = (host, port + ("names another client" in faults), *self.writer.get_extra_info("sockname"))
        said = Opening("service", "clients", self.secret, "minimal", ends)
        packed = tunnel.packed or "packs M_OPEN for everybody" in faults
        self.tell(F.M_OPEN, limit=WINDOW, payload=said.pack() if packed else said.json())
        self.rewind()
        self.pump()

    def go(self, tunnel: Tunnel) -> None:
        """On this tunnel from now on."""
        self.tunnel, self.attached, self.resumed = tunnel, True, True

    def wait(self) -> None:
        """Without a tunnel."""
        self.tunnel, self.attached = None, False

    def reset(self, reason: Reason, *, told: bool = False) -> None:
        if told and self.peer_ended and self.writer is not None:
            self.side.forget(self)
            self.writer.close()
        else:
            super().reset(reason, told=told)

    def unasked(self) -> None:
        """The agent has not asked for it in time: it does not have it any more."""
        if self.peer_ended and "loses a slow client's tail" not in self.side.faults:
            self.reset(Reason.LINK_LOST, told=True)
        else:
            self.reset(Reason.LINK_LOST)
