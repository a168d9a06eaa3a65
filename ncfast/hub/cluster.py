"""The hub among others: its mesh, opened and closed as the mode says, and the rooms that its links' news go to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ncfast.config.ha import Ha
from ncfast.core.errors import Reason
from ncfast.hub.ground import Ground
from ncfast.hub.relays import Relays
from ncfast.hub.resuming import Resuming
from ncfast.hub.routing import Router
from ncfast.hub.steering import Steering
from ncfast.hub.ways import Ways
from ncfast.registry import DistributedRegistry

if TYPE_CHECKING:
    from ncfast.mesh.peer import Peer


def mesh_url(ha: Ha) -> str:
    """Where the others reach our mesh, as far as the configuration tells; "" if it does not."""
    mesh = ha.mesh
    if mesh.advertise is not None:
        return mesh.advertise
    if mesh.listen is not None and not mesh.listen.is_wildcard and mesh.listen.port:
        return f"{'tls' if mesh.require_mtls else 'tcp'}://{mesh.listen}"
    return ""


class Cluster:
    """The host of the mesh (`mesh.PeerHost`)."""

    def __init__(
        self,
        ground: Ground,
        registry: DistributedRegistry,
        ways: Ways,
        steering: Steering,
        router: Router,
        resuming: Resuming,
        relays: Relays,
    ) -> None:
        self._ground = ground
        self._registry = registry
        self._ways = ways
        self._steering = steering
        self._router = router
        self._resuming = resuming
        self._relays = relays

    # the mesh

    def inherit(self) -> None:
        """We are in the mesh as soon as our predecessor has left it, and `follow_mode` opens it. Agents that claim
        earlier must not take us for a hub that is alone."""
        self._ways.inherited = self._ground.mode != "off"

    async def follow_mode(self) -> None:
        """Takes the mode and what a mesh can change from the configuration. Raises OSError, and nothing has changed
        then."""
        mesh, mode = self._ways.mesh, self._ground.mode
        self._ways.inherited &= mode != "off"
        if mode != "off" and mesh is None:
            await self._open()
        elif mode != "off" and mesh is not None and mesh.retiring:
            await mesh.rejoin(self._ground.config)
            self.replicas_changed()
        elif mode != "off" and mesh is not None:
            mesh.configure(self._ground.config)
        elif mesh is not None:
            mesh.retire()
            if mesh.retired:
                await self.close()
        self._ground.readiness.mode = mode

    def prepare(self) -> None:
        """Loads what a mesh needs: a tenth of a second, that flows without a way would wait for."""
        if self._ground.mode != "off":
            import ncfast.mesh.manager  # noqa: F401
            from ncfast.mesh.handshake import Auth

            Auth.model_rebuild()

    async def _open(self) -> None:
        from ncfast.mesh.manager import Mesh  # a hub that is alone loads none of it

        mesh = Mesh(self._ground, self)
        await mesh.start()
        self._ways.mesh, self._ways.inherited = mesh, False
        self.replicas_changed()

    async def close(self) -> None:
        """Ends all links."""
        mesh, self._ways.mesh = self._ways.mesh, None
        if mesh is not None:
            self._ground.stats.epochs_refused += mesh.totals().stale_epoch
            await mesh.stop()

    def part(self) -> None:
        """Our successor takes our place in the mesh: all links end, their flows have detached, and the door stays as it
        is. `rejoin` takes the place back."""
        if self._ways.mesh is not None:
            self._ways.mesh.part()

    def rejoin(self) -> None:
        """After `part`."""
        if self._ways.mesh is not None:
            self._ways.mesh.go_on()
            self.replicas_changed()

    def replicas_changed(self) -> None:
        """The registry knows of other hubs than before."""
        if self._ways.mesh is not None:
            others = self._registry.view.replicas.values()
            self._ways.mesh.discovered(one for one in others if one.replica_id != self._ground.replica_id)

    def say_leaving(self) -> None:
        """We drain: no new flows from the others."""
        if self._ways.mesh is not None:
            self._ways.mesh.say_leaving()

    def tick(self, now: float) -> None:
        """Timers of the links, about twice a second."""
        mesh = self._ways.mesh
        if mesh is not None:
            mesh.tick(now)
            if mesh.retired:
                self._ground.net.spawn(self.close(), "leave-mesh")

    # what the mesh tells

    def peer_up(self, peer: Peer) -> None:
        """A link to another hub stands."""
        self._router.peer_up(peer)

    def peer_down(self, peer: Peer, reason: Reason) -> None:
        """It is gone; its flows have detached."""
        self._relays.peer_lost(peer)
        self._steering.peer_lost(peer)

    def mesh_open(self, peer: Peer, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        """M_OPEN from another hub."""
        self._relays.open(peer, cid, epoch, limit, body)

    def mesh_resume(self, peer: Peer, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> bool:
        """M_RESUME from another hub: for a client of ours, or for one of its own. False: there is no such flow."""
        if (awaited := self._ground.awaited) is not None and awaited.awaits(cid):
            awaited.keep(cid, peer.link, epoch, partial(self._resume_again, peer, cid, epoch, payload, ack, limit))
            if self._ground.taking is not None:
                self._ground.taking.asked(cid, epoch)
            return True
        if self._ground.ours(cid):
            return self._resuming.by_owner(peer, cid, epoch, payload, ack, limit)
        self._relays.resume_from_origin(peer, cid, epoch, payload, ack, limit)
        return True

    def _resume_again(self, peer: Peer, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> None:
        if not peer.link.closed and not self.mesh_resume(peer, cid, epoch, payload, ack, limit):
            peer.link.refuse(cid, Reason.UNKNOWN_FLOW, epoch)

    def awaits(self, cid: bytes) -> bool:
        """Whether a client's flow that is not here may come from our predecessor, or be our successor's by now."""
        return self._ground.awaits(cid) or self._ground.gave(cid)

    def mesh_stale(self, peer: Peer, cid: bytes, epoch: int) -> None:
        """The owner of a flow's agent knows of a later epoch than ours."""
        self._resuming.outdated(peer, cid, epoch)
