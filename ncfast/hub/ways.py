"""The ways to other hubs: which links stand, and who lives behind a cid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ncfast.hub.ground import Ground
from ncfast.registry import DistributedRegistry

if TYPE_CHECKING:
    from ncfast.mesh.manager import Mesh
    from ncfast.mesh.peer import Peer


class Ways:
    """What routing and relays ask of mesh and registry. `mesh` is None while the mode is off, and no
    flow of before needs its links; and while it is `inherited`: our predecessor has not left it yet."""

    def __init__(self, ground: Ground, registry: DistributedRegistry) -> None:
        self._ground = ground
        self._registry = registry
        self.mesh: Mesh | None = None
        self.inherited = False

    @property
    def active(self) -> bool:
        """Whether agents of other hubs serve our clients."""
        return self._ground.mode == "active" and self.clustered

    @property
    def clustered(self) -> bool:
        """Whether flows of other hubs may come here."""
        return self.mesh is not None or self.inherited

    def peers(self) -> list[Peer]:
        """The hubs to which a link is up."""
        return self.mesh.peers if self.mesh is not None else []

    def peer(self, replica_id: str) -> Peer | None:
        """The link to this hub, if one is up."""
        return self.mesh.peer(replica_id) if self.mesh is not None else None

    def origin(self, cid: bytes) -> Peer | None:
        """The link to the hub where a flow's client is, if one is up."""
        return self.mesh.origin(cid) if self.mesh is not None else None

    def former(self, cid: bytes) -> bool:
        """Whether the hub process that gave out this cid is known to have ended: its replica has come back as
        another."""
        return self.mesh is not None and self.mesh.was(cid[: len(self._ground.instance)])

    def present(self, cid: bytes) -> bool:
        """Whether the hub process that gave out this cid is known to live."""
        instance = cid[: len(self._ground.instance)].hex()
        return any(one.instance == instance for one in self._registry.view.replicas.values())
