"""What an agent has to keep at any time."""

from __future__ import annotations

from ncfast._frames import FrameType
from ncfast.conformance.broken import Broken
from ncfast.conformance.flow import Flow
from ncfast.conformance.referee import Referee
from ncfast.conformance.tunnel import Frame, Tunnel

F = FrameType


class AgentReferee(Referee):
    """Of an agent's frames."""

    OURS = frozenset({F.HELLO_ACK, F.M_OPEN, F.M_DETACH, F.M_GAP})
    FAR = "service"
    AGAIN = "8.11"

    def __init__(self, flows: dict[bytes, Flow]) -> None:
        super().__init__(flows)
        self.connectable = True  # the service takes connects

    def _of_tunnel(self, tunnel: Tunnel, frame: Frame) -> None:
        if frame.type != F.HELLO:
            self._under_epoch(tunnel, frame)
        elif frame.epoch:
            raise Broken("8.2", f"HELLO has epoch {frame.epoch}")

    def _before(self, tunnel: Tunnel, flow: Flow, frame: Frame) -> None:
        if flow.way is None and frame.type == F.M_OPEN_ACK:
            flow.come(tunnel)  # its dial has outlived the former tunnel
        if flow.way is not tunnel and frame.type != F.M_RESUME:
            return
        if frame.ack and not flow.opened and frame.type not in (F.M_OPEN_ACK, F.M_RESUME):
            raise Broken("6.8", f"{frame.name} acknowledges {frame.ack} before M_OPEN_ACK")
        if frame.type == F.M_OPEN_ACK:
            flow.opened = True
        elif frame.type in (F.M_DATA, F.M_FIN) and not flow.opened:
            raise Broken("5.M_OPEN_ACK", f"{frame.name} comes before M_OPEN_ACK")

    def _resume(self, flow: Flow, frame: Frame) -> None:
        super()._resume(flow, frame)
        if not self.connectable and flow.far is None:
            raise Broken("8.8", "M_RESUME although the target is not connected")
        flow.opened = True
