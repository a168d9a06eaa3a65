"""A flow at the minimal agent, with its target."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ncfast._frames import FrameType
from ncfast.core.errors import Reason

if TYPE_CHECKING:
    from conformance.minimal_agent import MinimalAgent

F = FrameType
WINDOW = 65536
PIECE = 16384


class Flow:
    """The agent's end."""

    def __init__(self, agent: MinimalAgent, cid: bytes, secret: bytes, limit: int) -> None:
        self.agent, self.cid, self.secret = agent, cid, secret
        self.credit = limit  # of ours: the hub's limit
        self.out = bytearray()  # from `una` on
        self.una = self.sent = 0
        self.ended = self.fin_sent = self.fin_acked = False  # our direction
        self.wanted = 0
        self.hub_ended = False
        self.early = bytearray()
        self.writer: asyncio.StreamWriter | None = None
        self.resumed = True
        self.attached = True
        self.gap = False
        self.late_reset = False
        self.giving_up: asyncio.TimerHandle | None = None
        self.task = asyncio.create_task(self.serve())

    # the target

    async def serve(self) -> None:
        host, _, port = self.agent.places["target"].rpartition(":")
        if "sends before M_OPEN_ACK" in self.agent.faults:
            self.send(F.M_FIN)
        try:
            reader, self.writer = await asyncio.open_connection(host, int(port))
        except OSError:
            self.reset(Reason.TARGET_REFUSED)
            return
        if self.attached:
            self.send(F.M_OPEN_ACK)
        self.writer.write(self.early)
        if self.hub_ended:
            self.writer.write_eof()
        if self.gap:
            self.ask()
        try:
            while data := await reader.read(PIECE):
                self.out += data
                if "drops what came before a reset" not in self.agent.faults:
                    self.pump()
            self.ended = True
            self.pump()
        except ConnectionResetError:
            if "drops what came before a reset" in self.agent.faults:
                self.reset(Reason.TARGET_RESET)
            else:
                self.late_reset = True
                self.pump()

    # its way

    def leave(self) -> None:
        """It waits, for the grace."""
        self.attached = self.resumed = False
        if self.giving_up is None:
            loop = asyncio.get_running_loop()
            self.giving_up = loop.call_later(self.agent.grace, lambda: self.reset(Reason.LINK_LOST, told=True))

    def come(self, *, resumed: bool) -> None:
        self.attached, self.resumed = True, resumed
        if self.giving_up is not None:
            self.giving_up.cancel()
            self.giving_up = None

    # to the hub

    def send(self, type: F, **fields: Any) -> None:
        connected = self.writer is not None or "acknowledges before the target is connected" in self.agent.faults
        ack = self.wanted + self.hub_ended if connected else 0
        if "acknowledges nothing" in self.agent.faults and type == F.M_ACK:
            ack = 0
        self.agent.send(type, cid=self.cid, ack=ack, limit=self.limit, **fields)

    @property
    def limit(self) -> int:
        """A window above what the target was given."""
        return WINDOW + (self.wanted if self.writer is not None else 0)

    def pump(self) -> None:
        """Sends what credit allows."""
        faults = self.agent.faults
        mute = not self.attached and "sends while it is detached" not in faults
        waits = not self.resumed and "sends before M_RESUME is answered" not in faults
        if mute or (self.attached and waits):
            return
        end = self.una + len(self.out)
        while self.sent < (end if "sends without credit" in faults else min(end, self.credit)):
            at = self.sent - self.una
            piece = bytes(self.out[at : at + min(PIECE, max(self.credit - self.sent, 1))])
            self.send(F.M_DATA, seq=self.sent, payload=piece)
            self.sent += len(piece)
        if self.sent == end and self.late_reset:
            self.reset(Reason.TARGET_RESET)
        elif self.sent == end and self.ended and not self.fin_sent:
            self.fin_sent = True
            self.send(F.M_FIN, seq=end)
            if "closes both directions at one end" in faults and self.writer is not None:
                self.writer.close()
        elif self.sent == end and "closes both directions at one end" in faults and self.hub_ended:
            self.fin_sent = True
            self.send(F.M_FIN, seq=end)

    def ask(self) -> None:
        if "does not ask for what is missing" not in self.agent.faults:
            self.gap = True
            self.send(F.M_RESUME, payload=self.secret)

    def rewind(self) -> None:
        if "goes on where it was" not in self.agent.faults:
            self.sent = self.una
            self.fin_sent = False

    def reset(self, reason: Reason, *, told: bool = False) -> None:
        """Ends the flow, in both directions."""
        self.agent.forget(self)
        self.come(resumed=False)
        if not told and self.attached:
            self.agent.send(F.M_RST, cid=self.cid, code=reason)
        if self.writer is not None:
            if "closes in order when it is reset" in self.agent.faults:
                self.writer.close()
            else:
                abort(self.writer)
        if asyncio.current_task() is not self.task:
            self.task.cancel()

    # from the hub

    def acknowledged(self, ack: int, limit: int) -> bool:
        if ack > self.sent + self.fin_sent and self.una + len(self.out) + self.ended < ack:
            if "takes any acknowledgement" not in self.agent.faults:
                self.reset(Reason.FLOW_CONTROL)
                return False
            return True
        self.credit = max(self.credit, limit)
        bytes_acked = min(ack, self.una + len(self.out))
        if bytes_acked > self.una:
            del self.out[: bytes_acked - self.una]
            self.una = bytes_acked
            self.sent = max(self.sent, self.una)
        return True

    def data(self, seq: int, payload: bytes) -> None:
        faults = self.agent.faults
        if seq + len(payload) > self.limit or (self.hub_ended and seq + len(payload) > self.wanted):
            self.reset(Reason.FLOW_CONTROL)
            return
        if seq > self.wanted:
            if self.writer is None:
                self.gap = True
            elif not self.gap or "asks for each frame that is missing" in faults:
                self.ask()
            return
        fresh = payload if "delivers duplicates" in faults else payload[self.wanted - seq :]
        self.wanted = max(self.wanted, seq + len(payload))
        if fresh and self.writer is None:
            self.early += fresh
        elif fresh and self.writer is not None:
            self.writer.write(fresh)
        if fresh:
            self.gap = False
        if self.writer is not None or "acknowledges before the target is connected" in faults:
            self.send(F.M_ACK)

    def fin(self, seq: int) -> None:
        if seq < self.wanted:
            self.reset(Reason.FLOW_CONTROL)
        elif seq > self.wanted:
            self.ask()
        else:
            if not self.hub_ended:
                self.hub_ended = True
                if self.writer is not None:
                    self.writer.write_eof()
            if self.writer is not None:
                self.send(F.M_ACK)
                self.pump()

    def over(self) -> bool:
        return self.hub_ended and self.fin_acked


def abort(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
