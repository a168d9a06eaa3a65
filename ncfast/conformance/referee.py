"""What holds of every frame of an agent at any time, whatever the script is about; and what the hub's end keeps of a
flow to judge by."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from ncfast._frames import FrameType
from ncfast.conformance.broken import Broken
from ncfast.conformance.service import Stream, Target
from ncfast.conformance.tunnel import Frame, Tunnel
from ncfast.core.errors import Reason

F = FrameType

FLOWS = frozenset({F.M_OPEN_ACK, F.M_DATA, F.M_ACK, F.M_FIN, F.M_RST, F.M_RESUME, F.M_RESUME_ACK})  # an agent's
ACKNOWLEDGES = FLOWS - {F.M_RST}
HUBS = frozenset({F.HELLO_ACK, F.M_OPEN, F.M_DETACH, F.M_GAP})  # an agent never sends them


@dataclass
class Flow:
    """The hub's end. Positions are numbers of bytes, as on the wire."""

    name: str
    cid: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    target: Target | None = None
    way: Tunnel | None = None  # the tunnel that it is on
    opened: bool = False  # the agent has said that the target is connected
    closed: bool = False  # M_RST has gone or come
    # ours
    sent: int = 0
    fin_sent: bool = False
    acked: int = 0
    granted: int = 0  # by the agent
    # the agent's
    received: int = 0
    fin_received: bool = False
    limit: int = 0  # by us
    next: int = 0  # what the next M_DATA on this tunnel begins with
    again: int | None = None  # or this: we have asked for it
    mute: tuple[Tunnel, str] | None = None  # where nothing of it may come, and the rule that says so

    def __post_init__(self) -> None:
        self.client = Stream(f"client {self.name}")
        self.service = Stream(f"service {self.name}")

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
        """The highest number that the agent may acknowledge."""
        return self.sent + self.fin_sent


class Referee:
    """Sees each frame as it comes. Raises Broken."""

    def __init__(self, flows: dict[bytes, Flow]) -> None:
        self._flows = flows
        self.connectable = True  # the service takes connects

    def judge(self, tunnel: Tunnel, frame: Frame) -> None:
        if frame.type in HUBS:
            raise Broken("5.other-end", f"{frame.name} is not the agent's to send")
        if frame.type == F.PING:
            tunnel.frame(F.PONG, epoch=tunnel.epoch, seq=frame.seq)
        elif frame.type == F.PONG:
            if frame.seq > tunnel.pings or frame.seq <= tunnel.ponged:
                raise Broken("9.1", f"a PONG brings back {frame.seq}, which no unanswered PING has said")
            tunnel.ponged = frame.seq
            self._under_epoch(tunnel, frame)
        elif frame.type == F.HELLO:
            if frame.epoch:
                raise Broken("8.2", f"HELLO has epoch {frame.epoch}")
        elif frame.type in FLOWS:
            self._of_flow(tunnel, frame)
        elif frame.type in F.__members__.values():
            self._under_epoch(tunnel, frame)

    @staticmethod
    def _under_epoch(tunnel: Tunnel, frame: Frame) -> None:
        if frame.epoch != tunnel.epoch:
            raise Broken("8.2", f"{frame.name} has epoch {frame.epoch} on a tunnel of {tunnel.epoch}")

    def _of_flow(self, tunnel: Tunnel, frame: Frame) -> None:
        if not tunnel.owns:
            raise Broken("8.16", f"{frame.name} on a tunnel that owns nothing")
        flow = self._flows.get(frame.cid)
        if frame.type == F.M_RST and frame.code == Reason.STALE_EPOCH:
            if flow is not None:
                return  # answers what had another epoch
        self._under_epoch(tunnel, frame)
        if flow is None:
            raise Broken("5.M_OPEN", f"{frame.name} is of a flow that was never opened")
        if flow.closed:
            return  # it was on its way
        if flow.way is None and frame.type == F.M_OPEN_ACK:
            flow.come(tunnel)  # its dial has outlived the former tunnel
        if flow.way is not tunnel and frame.type != F.M_RESUME:
            if flow.mute is not None and flow.mute[0] is tunnel and frame.type in (F.M_DATA, F.M_FIN):
                raise Broken(flow.mute[1], f"{frame.name} comes although the flow waits to be resumed")
            return
        if frame.type in ACKNOWLEDGES:
            self._acknowledged(flow, frame)
        if frame.type == F.M_OPEN_ACK:
            flow.opened = True
        elif frame.type == F.M_DATA:
            self._data(flow, frame)
        elif frame.type == F.M_FIN:
            self._fin(flow, frame)
        elif frame.type == F.M_RST:
            flow.closed = True
        elif frame.type == F.M_RESUME:
            self._resume(flow, frame)

    def _acknowledged(self, flow: Flow, frame: Frame) -> None:
        connected = flow.opened or frame.type in (F.M_OPEN_ACK, F.M_RESUME)
        if frame.ack and not connected:
            raise Broken("6.8", f"{frame.name} acknowledges {frame.ack} before M_OPEN_ACK")
        if frame.ack > flow.end:
            raise Broken("6.6", f"{frame.name} acknowledges {frame.ack}, and {flow.end} is the highest number sent")
        flow.acked = max(flow.acked, frame.ack)
        flow.granted = max(flow.granted, frame.limit)

    def _data(self, flow: Flow, frame: Frame) -> None:
        start, end = frame.seq, frame.seq + len(frame.payload)
        self._may_send(flow, frame)
        if flow.fin_received and end > flow.received:
            raise Broken("6.2", f"bytes up to {end} come behind the end at {flow.received}")
        if end > flow.limit:
            raise Broken("6.12", f"M_DATA fills numbers up to {end}, and the limit is {flow.limit}")
        if flow.again is not None and start <= flow.again < end:
            flow.again = None
        elif start != flow.next:
            rule, again = ("6.3", "") if flow.again is None else ("8.11", f", nor holds {flow.again}")
            raise Broken(rule, f"M_DATA begins with {start}, not with {flow.next}{again}")
        if frame.payload != flow.service.part(start, end):
            raise Broken("6.1", f"the bytes {start} to {end} are not those that the service has said")
        flow.next = end
        flow.received = max(flow.received, end)

    def _fin(self, flow: Flow, frame: Frame) -> None:
        self._may_send(flow, frame)
        if frame.seq not in (flow.next, flow.again):
            raise Broken("6.2", f"M_FIN has seq {frame.seq}, and the last byte before it is {flow.next - 1}")
        if flow.target is not None and not (flow.target.ended and frame.seq == flow.target.said):
            raise Broken("7.1", f"M_FIN comes after {frame.seq} bytes; the service has said {flow.target.said}")
        flow.again = None
        flow.fin_received = True

    def _may_send(self, flow: Flow, frame: Frame) -> None:
        if not flow.opened:
            raise Broken("5.M_OPEN_ACK", f"{frame.name} comes before M_OPEN_ACK")

    def _resume(self, flow: Flow, frame: Frame) -> None:
        if frame.payload != flow.secret:
            raise Broken("8.8", "M_RESUME does not show the secret of M_OPEN, and it alone")
        if not self.connectable and flow.target is None:
            raise Broken("8.8", "M_RESUME although the target is not connected")
        flow.opened = True
