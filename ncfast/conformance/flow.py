"""What our end keeps of a flow to judge the other one by."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from ncfast.conformance.farside import FarSide, Stream
from ncfast.conformance.tunnel import Tunnel


@dataclass
class Flow:
    """Our end. Positions are numbers of bytes, as on the wire."""

    name: str
    cid: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    agent: str = ""  # at whose tunnel it has been opened
    far: FarSide | None = None  # the socket that the other end has
    way: Tunnel | None = None  # the tunnel that it is on
    opened: bool = False  # M_OPEN_ACK has been said
    closed: bool = False  # M_RST has gone or come
    # ours
    sent: int = 0
    fin_sent: bool = False
    acked: int = 0
    granted: int = 0  # to us
    # the other end's
    received: int = 0
    fin_received: bool = False
    limit: int = 0  # by us
    next: int = 0  # what the next M_DATA on this tunnel begins with
    again: int | None = None  # or this: we have asked for it
    mute: tuple[Tunnel, str] | None = None  # where nothing of it may come, and the rule that says so

    def __post_init__(self) -> None:
        self.ours = Stream(f"ours {self.name}")
        self.theirs = Stream(f"theirs {self.name}")

    def open(self, cid: bytes, secret: bytes, agent: str, limit: int) -> None:
        """The other end opens it, at this agent, which grants `limit`; from byte 0, if it was refused before."""
        self.cid, self.secret, self.agent, self.limit = cid, secret, agent, limit
        self.opened = self.closed = self.fin_received = False
        self.received = self.acked = self.granted = 0

    def come(self, tunnel: Tunnel) -> None:
        """It is on this tunnel from now on, and goes on where the other end has been told that we are."""
        self.way, self.mute = tunnel, None
        self.next = self.again = self.received

    def leave(self, tunnel: Tunnel, rule: str) -> None:
        """It waits, and until it comes back nothing of it may be sent on this tunnel."""
        self.way, self.mute = None, (tunnel, rule)

    @property
    def ack(self) -> int:
        """The next number that we want."""
        return self.received + self.fin_received

    @property
    def end(self) -> int:
        """The highest number that the other end may acknowledge."""
        return self.sent + self.fin_sent
