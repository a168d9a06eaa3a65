"""What holds of every frame at any time, whatever the script is about, and whoever sends it."""

from __future__ import annotations

from typing import ClassVar

from ncfast._frames import FrameType
from ncfast.conformance.broken import Broken
from ncfast.conformance.flow import Flow
from ncfast.conformance.tunnel import Frame, Tunnel
from ncfast.core.errors import Reason

F = FrameType

FLOWS = frozenset({F.M_OPEN_ACK, F.M_DATA, F.M_ACK, F.M_FIN, F.M_RST, F.M_RESUME, F.M_RESUME_ACK, F.M_DETACH, F.M_GAP})
ACKNOWLEDGES = frozenset({F.M_OPEN_ACK, F.M_DATA, F.M_ACK, F.M_FIN, F.M_RESUME, F.M_RESUME_ACK})


class Referee:
    """Sees each frame as it comes. Raises Broken."""

    OURS: ClassVar[frozenset[FrameType]]  # frames that the other end never sends
    FAR: ClassVar[str]  # who is at the other end's socket
    AGAIN: ClassVar[str]  # the rule by which it sends again what was lost

    def __init__(self, flows: dict[bytes, Flow]) -> None:
        self._flows = flows

    def judge(self, tunnel: Tunnel, frame: Frame) -> None:
        if frame.type in self.OURS and not (frame.type == F.M_DETACH and tunnel.left):
            raise Broken("5.other-end", f"{frame.name} is not the other end's to send")
        if frame.type == F.PING:
            if frame.seq == tunnel.pinged:
                raise Broken("9.1", f"two PINGs say {frame.seq}")
            tunnel.pinged = frame.seq
            if not tunnel.deaf:
                tunnel.frame(F.PONG, epoch=tunnel.epoch, seq=frame.seq)
        elif frame.type == F.PONG:
            if frame.seq > tunnel.pings or frame.seq <= tunnel.ponged:
                raise Broken("9.1", f"a PONG brings back {frame.seq}, which no unanswered PING has said")
            tunnel.ponged = frame.seq
            self._under_epoch(tunnel, frame)
        elif frame.type in FLOWS:
            self._of_flow(tunnel, frame)
        elif frame.type in F.__members__.values():
            self._of_tunnel(tunnel, frame)

    def _of_tunnel(self, tunnel: Tunnel, frame: Frame) -> None:
        self._under_epoch(tunnel, frame)

    @staticmethod
    def _under_epoch(tunnel: Tunnel, frame: Frame) -> None:
        if frame.epoch != tunnel.epoch:
            raise Broken("8.2", f"{frame.name} has epoch {frame.epoch} on a tunnel of {tunnel.epoch}")

    def _of_flow(self, tunnel: Tunnel, frame: Frame) -> None:
        flow = self._flows.get(frame.cid)
        if frame.type == F.M_RST and frame.code in (Reason.STALE_EPOCH, Reason.UNKNOWN_FLOW) and flow is not None:
            if not tunnel.owns or frame.code == Reason.STALE_EPOCH:
                return  # answers what had another epoch, or what no flow can be of
        if not tunnel.owns:
            raise Broken("8.16", f"{frame.name} on a tunnel that owns nothing")
        self._under_epoch(tunnel, frame)
        if flow is None:
            raise Broken("5.M_OPEN", f"{frame.name} is of a flow that was never opened")
        if flow.closed:
            return  # it was on its way
        self._before(tunnel, flow, frame)
        if flow.way is not tunnel and frame.type != F.M_RESUME:
            if flow.mute is not None and flow.mute[0] is tunnel and frame.type in (F.M_DATA, F.M_FIN):
                raise Broken(flow.mute[1], f"{frame.name} comes although the flow waits to be resumed")
            return
        if frame.type in ACKNOWLEDGES:
            self._acknowledged(flow, frame)
        if frame.type == F.M_DATA:
            self._data(flow, frame)
        elif frame.type == F.M_FIN:
            self._fin(flow, frame)
        elif frame.type == F.M_RST:
            flow.closed = True
        elif frame.type == F.M_RESUME:
            self._resume(flow, frame)

    def _before(self, tunnel: Tunnel, flow: Flow, frame: Frame) -> None:
        """What only one of the two ends has to keep."""

    def _acknowledged(self, flow: Flow, frame: Frame) -> None:
        if frame.ack > flow.end:
            raise Broken("6.6", f"{frame.name} acknowledges {frame.ack}, and {flow.end} is the highest number sent")
        flow.acked = max(flow.acked, frame.ack)
        flow.granted = max(flow.granted, frame.limit)

    def _data(self, flow: Flow, frame: Frame) -> None:
        start, end = frame.seq, frame.seq + len(frame.payload)
        if flow.fin_received and end > flow.received:
            raise Broken("6.2", f"bytes up to {end} come behind the end at {flow.received}")
        if end > flow.limit:
            raise Broken("6.12", f"M_DATA fills numbers up to {end}, and the limit is {flow.limit}")
        if flow.again is not None and start <= flow.again < end:
            flow.again = None
        elif start != flow.next:
            rule, again = ("6.3", "") if flow.again is None else (self.AGAIN, f", nor holds {flow.again}")
            raise Broken(rule, f"M_DATA begins with {start}, not with {flow.next}{again}")
        if frame.payload != flow.theirs.part(start, end):
            raise Broken("6.1", f"the bytes {start} to {end} are not those that the {self.FAR} has said")
        flow.next = end
        flow.received = max(flow.received, end)

    def _fin(self, flow: Flow, frame: Frame) -> None:
        if frame.seq not in (flow.next, flow.again):
            raise Broken("6.2", f"M_FIN has seq {frame.seq}, and the last byte before it is {flow.next - 1}")
        if flow.far is not None and not (flow.far.ended and frame.seq == flow.far.said):
            raise Broken("7.1", f"M_FIN comes after {frame.seq} bytes; the {self.FAR} has said {flow.far.said}")
        flow.again = None
        flow.fin_received = True

    def _resume(self, flow: Flow, frame: Frame) -> None:
        if frame.payload != flow.secret:
            raise Broken("8.8", "M_RESUME does not show the secret of M_OPEN, and it alone")
