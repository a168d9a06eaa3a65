"""What a mesh needs of the hub that it belongs to, and of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ncfast.config.hub import HubConfig
from ncfast.core.context import FlowContext
from ncfast.core.errors import Reason
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.seam import Net
from ncfast.observe.stats import Stats

if TYPE_CHECKING:
    from ncfast.mesh.peer import Peer


class Replica(Protocol):
    """What the registry says of a hub."""

    @property
    def replica_id(self) -> str: ...
    @property
    def instance(self) -> str: ...
    @property
    def mesh_url(self) -> str: ...


class MeshGround(Protocol):
    """What a mesh stands on."""

    config: HubConfig
    net: Net
    context: FlowContext
    receive_buffer: ReceiveBuffer
    replica_id: str
    instance: bytes  # 8 bytes: how its cids begin
    stats: Stats


class PeerHost(Protocol):
    """Whom a mesh tells what its links bring."""

    def peer_up(self, peer: Peer) -> None:
        """The link is established."""

    def peer_down(self, peer: Peer, reason: Reason) -> None:
        """The link is over; its flows have detached."""

    def mesh_open(self, peer: Peer, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        """M_OPEN came."""

    def mesh_resume(self, peer: Peer, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> bool:
        """M_RESUME came; False: there is no such flow."""

    def awaits(self, cid: bytes) -> bool:
        """Whether a flow of ours that is not here may come in a moment, from our predecessor."""

    def mesh_stale(self, peer: Peer, cid: bytes, epoch: int) -> None:
        """The far end of one of our flows knows of a higher epoch."""
