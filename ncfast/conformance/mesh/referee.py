"""What a hub of a cluster has to keep at any time. Flows that it relays are compared by the script, end with end."""

from __future__ import annotations

from ncfast._frames import FrameType
from ncfast.conformance.broken import Broken
from ncfast.conformance.flow import Flow
from ncfast.conformance.hubs.referee import HubReferee
from ncfast.conformance.mesh.link import Link
from ncfast.conformance.tunnel import Frame, Tunnel

F = FrameType


class MeshReferee(HubReferee):
    """Of a hub's frames, on tunnels and links."""

    def __init__(self, flows: dict[bytes, Flow]) -> None:
        super().__init__(flows)
        self.relayed: set[bytes] = set()

    def judge(self, tunnel: Tunnel, frame: Frame) -> None:
        if isinstance(tunnel, Link):
            self._of_link(tunnel, frame)
        elif frame.cid in self.relayed:
            if frame.epoch != tunnel.epoch:
                raise Broken("10.3", f"{frame.name} has epoch {frame.epoch} on a tunnel of {tunnel.epoch}")
        else:
            super().judge(tunnel, frame)

    def _of_link(self, link: Link, frame: Frame) -> None:
        if frame.type in (F.HELLO, F.ANNOUNCE, F.MOVE):
            raise Broken("11.10", f"{frame.name} comes on a link")
        if frame.type in (F.PING, F.PONG):
            super().judge(link, frame)
        elif frame.cid == bytes(16):
            if frame.epoch:
                raise Broken("11.15", f"{frame.name} has epoch {frame.epoch}")
        elif frame.cid not in self.relayed and frame.cid not in self._flows:
            raise Broken("10.4", f"{frame.name} is of a flow that is not the link's")
