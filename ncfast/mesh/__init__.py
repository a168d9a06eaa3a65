"""Links between the hubs of a cluster: listening, dialling, who may join, which of two links stays."""

from ncfast.mesh.host import PeerHost
from ncfast.mesh.manager import Mesh
from ncfast.mesh.peer import Peer
from ncfast.mesh.states import LinkState

__all__ = ["LinkState", "Mesh", "Peer", "PeerHost"]
