"""One end of a flow with nothing in it but the protocol, for the minimal agent and the minimal hub; with the faults
that are the end's own."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from typing import Any, ClassVar, Protocol

from ncfast._frames import FrameType
from ncfast.core.errors import Reason

F = FrameType
WINDOW = 65536
PIECE = 16384


class Side(Protocol):
    """The agent or hub that it is an end of."""

    faults: Collection[str]

    def forget(self, end: Any) -> None:
        """The flow is over."""


class End:
    """`writer` is of its socket; without one the socket is not connected yet."""

    LOST: ClassVar[Reason]  # the socket was reset

    def __init__(self, side: Side, cid: bytes, secret: bytes, credit: int) -> None:
        self.side, self.cid, self.secret = side, cid, secret
        self.credit = credit  # of ours: the peer's limit
        self.out = bytearray()  # from `una` on
        self.una = self.sent = 0
        self.ended = self.fin_sent = self.fin_acked = False  # our direction
        self.wanted = 0
        self.peer_ended = False
        self.early = bytearray()
        self.writer: asyncio.StreamWriter | None = None
        self.resumed = True
        self.attached = True
        self.gap = False
        self.late_reset = False
        self.task = asyncio.create_task(self.serve())

    async def serve(self) -> None:
        """Connects, and reads the socket."""
        raise NotImplementedError

    def tell(self, type: F, **fields: Any) -> None:
        """A frame on the tunnel that the flow is on."""
        raise NotImplementedError

    async def read(self, reader: asyncio.StreamReader) -> None:
        """The socket, until its end."""
        hasty = "drops what came before a reset" in self.side.faults
        try:
            while data := await reader.read(PIECE):
                self.out += data
                if not hasty:
                    self.pump()
            self.ended = True
            self.pump()
        except ConnectionResetError:
            if hasty:
                self.reset(self.LOST)
            else:
                self.late_reset = True
                self.pump()

    # to the peer

    def send(self, type: F, **fields: Any) -> None:
        connected = self.writer is not None or "acknowledges before the target is connected" in self.side.faults
        ack = self.wanted + self.peer_ended if connected else 0
        if "acknowledges nothing" in self.side.faults and type == F.M_ACK:
            ack = 0
        self.tell(type, ack=ack, limit=self.limit, **fields)

    @property
    def limit(self) -> int:
        """A window above what the target was given."""
        return WINDOW + (self.wanted if self.writer is not None else 0)

    def pump(self) -> None:
        """Sends what credit allows."""
        faults = self.side.faults
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
            self.reset(self.LOST)
        elif self.sent == end and self.ended and not self.fin_sent:
            self.fin_sent = True
            self.send(F.M_FIN, seq=end)
            if "closes both directions at one end" in faults and self.writer is not None:
                self.writer.close()
        elif self.sent == end and "closes both directions at one end" in faults and self.peer_ended:
            self.fin_sent = True
            self.send(F.M_FIN, seq=end)

    def ask(self) -> None:
        if "does not ask for what is missing" not in self.side.faults:
            self.gap = True
            self.send(F.M_RESUME, payload=self.secret)

    def rewind(self) -> None:
        if "goes on where it was" not in self.side.faults:
            self.sent = self.una
            self.fin_sent = False

    def reset(self, reason: Reason, *, told: bool = False) -> None:
        """Ends the flow, in both directions."""
        self.side.forget(self)
        if not told and self.attached:
            self.tell(F.M_RST, code=reason)
        if self.writer is not None:
            if "closes in order when it is reset" in self.side.faults:
                self.writer.close()
            else:
                abort(self.writer)
        if asyncio.current_task() is not self.task:
            self.task.cancel()

    # from the peer

    def acknowledged(self, ack: int, limit: int) -> bool:
        if ack > self.sent + self.fin_sent and self.una + len(self.out) + self.ended < ack:
            if "takes any acknowledgement" not in self.side.faults:
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
        faults = self.side.faults
        if seq + len(payload) > self.limit or (self.peer_ended and seq + len(payload) > self.wanted):
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
            if not self.peer_ended:
                self.peer_ended = True
                if self.writer is not None:
                    self.writer.write_eof()
            if self.writer is not None:
                self.send(F.M_ACK)
                self.pump()

    def over(self) -> bool:
        return self.peer_ended and self.fin_acked


def abort(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
