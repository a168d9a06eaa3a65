"""The hub: clients in at the listeners, agents in at the edge, other hubs over the mesh, flows between them.

One process, one event loop. The rooms: `agents` (tunnels that end here), `router` (our clients' flows and their ways),
`relays` (other hubs' flows to agents of ours), `registry` (who owns which agent), `mesh` (links to the other hubs).
Decisions are made synchronously, between two callbacks; nothing awaits between reading state and changing it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ncfast import __version__
from ncfast._frames import FrameType
from ncfast.auth import JwksKeys, StaticKeys, Verifier
from ncfast.config import Address, HubConfig, Jwt, waits_for_restart
from ncfast.config.changes import RELOADED_MESH
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow, FlowContext
from ncfast.hub.admin import Admin
from ncfast.hub.edge import Edge
from ncfast.hub.listener import ClientInfo, ClientListener
from ncfast.hub.relays import Relays
from ncfast.hub.routing import Router
from ncfast.hub.sessions import Agents
from ncfast.hub.snapshot import snapshot
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.seam import Net
from ncfast.net.throttle import Throttle
from ncfast.observe import log
from ncfast.observe.readiness import Readiness
from ncfast.observe.stats import Stats
from ncfast.observe.totals import LinkTotals
from ncfast.registry import DistributedRegistry, Replica, make_registry

if TYPE_CHECKING:
    from ncfast.mesh import Mesh, Peer

_log = log.get("hub")

TICK = 0.5  # seconds between looks at the timers of tunnels and mesh links
SWEEP_SLICE = 256  # flows looked at in one go, about 0.1 ms
SWEEP_PAUSE = 0.02  # seconds between two slices
SWEEP_EVERY = 0.5  # seconds between two rounds


def key_source(jwt: Jwt, net: Net) -> StaticKeys | JwksKeys:
    """The keys that the configuration names. Raises AuthSetupError."""
    if jwt.jwks_url is not None:
        return JwksKeys(jwt.jwks_url, jwt.algorithms, rng=net.rng)
    assert jwt.key_file is not None  # one of the two is there
    return StaticKeys.from_file(jwt.key_file, jwt.algorithms)


class Hub:
    """`await start()`, then it serves until `await drain()` or `await stop()`."""

    def __init__(
        self,
        config: HubConfig,
        jwt: Jwt,
        net: Net,
        wall_clock: Callable[[], float] = time.time,
        make: Callable[..., DistributedRegistry] = make_registry,
    ) -> None:
        self.config = config
        self.net = net
        self.wall_clock = wall_clock
        self.stats = Stats()
        self.readiness = Readiness(mode=self.mode)
        self.replica_id = config.ha.replica_id or "hub"
        self.instance = net.entropy(8)  # first half of every cid: unique across hubs and restarts
        self.context = FlowContext(
            net.clock,
            budget=config.limits.memory_bytes,
            window_initial=config.flow.window_initial,
            window_max=config.flow.window_max,
            seed=int.from_bytes(net.entropy(8)),
        )
        self.context.owner = self
        self.context.retains = net.retains
        self.flows = self.context.flows  # whose client sockets are here
        self.receive_buffer = ReceiveBuffer()
        self.jwt = jwt
        self.keys = key_source(jwt, net)
        self.verifier = Verifier(jwt, self.keys, wall_clock)
        self.expiry_grace = jwt.expiry_grace_sec
        self.open_throttle = Throttle(config.limits.opens_per_source_per_sec, net.clock)
        self.tunnel_totals = LinkTotals()  # of links that have ended
        self.epochs_refused = 0  # opens and resumes under an epoch that is over
        self.started_at = net.clock()
        self.registry = make(
            config.ha, Replica(self.replica_id, self.instance.hex(), self._mesh_url()), net, self.stats
        )
        self.agents = Agents(self)
        self.router = Router(self)
        self.relays = Relays(self)
        self.mesh: Mesh | None = None
        self.edge = Edge(self)
        self.admin = Admin(self, net.loop)
        self.listeners: dict[str, ClientListener] = {}
        self.drain_requested = asyncio.Event()
        self.state = "starting"
        self._reloading = asyncio.Lock()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._admin_server: Any = None

    # the cluster

    @property
    def mode(self) -> str:
        """off, shadow or active."""
        return self.config.ha.mode if self.config.ha.enabled else "off"

    @property
    def active(self) -> bool:
        """Whether agents of other hubs serve our clients."""
        return self.mode == "active" and self.mesh is not None

    @property
    def clustered(self) -> bool:
        """Whether flows of other hubs may come here."""
        return self.mesh is not None

    def peers(self) -> list[Peer]:
        """The hubs to which a link is up."""
        return self.mesh.peers if self.mesh is not None else []

    def peer(self, replica_id: str) -> Peer | None:
        """The link to this hub, if one is up."""
        return self.mesh.peer(replica_id) if self.mesh is not None else None

    def origin(self, cid: bytes) -> Peer | None:
        """The link to the hub where a flow's client is, if one is up."""
        return self.mesh.origin(cid) if self.mesh is not None else None

    def former(self, instance: bytes) -> bool:
        """Whether the hub process whose cids begin so is known to have ended: its replica has come back as another."""
        return self.mesh is not None and self.mesh.was(instance)

    def present(self, instance: bytes) -> bool:
        """Whether the hub process whose cids begin so is known to live."""
        return any(one.instance == instance.hex() for one in self.registry.view.replicas.values())

    def _mesh_url(self) -> str:
        """Where the others reach our mesh, as far as the configuration tells."""
        mesh = self.config.ha.mesh
        if mesh.advertise is not None:
            return mesh.advertise
        if mesh.listen is not None and not mesh.listen.is_wildcard and mesh.listen.port:
            return f"{'tls' if mesh.require_mtls else 'tcp'}://{mesh.listen}"
        return ""

    async def _open_mesh(self) -> None:
        """Raises OSError when the mesh cannot listen."""
        from ncfast.mesh import Mesh

        mesh = Mesh(self)
        await mesh.start()
        self.mesh = mesh
        self._replicas_changed()

    async def _close_mesh(self) -> None:
        mesh, self.mesh = self.mesh, None
        if mesh is not None:
            self.epochs_refused += mesh.stale_epoch
            await mesh.stop()

    def _replicas_changed(self) -> None:
        if self.mesh is not None:
            self.mesh.discovered(
                one for one in self.registry.view.replicas.values() if one.replica_id != self.replica_id
            )

    def peer_up(self, peer: Peer) -> None:
        """A link to another hub stands."""
        self.router.peer_up(peer)

    def peer_down(self, peer: Peer, reason: Reason) -> None:
        """It is gone; its flows have detached."""
        self.relays.peer_lost(peer)
        self.router.peer_lost(peer)

    def peer_leaving(self, peer: Peer) -> None:
        """The other hub drains: its agents claim elsewhere, and the view will say so."""

    def mesh_open(self, peer: Peer, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        """M_OPEN from another hub."""
        self.relays.open(peer, cid, epoch, limit, body)

    def mesh_resume(self, peer: Peer, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> bool:
        """M_RESUME from another hub: for a client of ours, or for one of its own. False: there is no such flow."""
        if cid.startswith(self.instance):
            return self.router.resume_by_mesh(peer, cid, epoch, payload, ack, limit)
        self.relays.resume_from_origin(peer, cid, epoch, payload, ack, limit)
        return True

    def mesh_stale(self, peer: Peer, cid: bytes, epoch: int) -> None:
        """The owner of a flow's agent knows of a later epoch than ours."""
        self.router.stale(peer, cid, epoch)

    # life

    async def start(self) -> None:
        """Binds everything and begins to serve. Raises OSError when a port cannot be bound; nothing stays open then."""
        self.registry.on_agents = self.router.changed
        self.registry.on_replicas = self._replicas_changed
        self.registry.on_fenced = self.agents.fenced
        try:
            for config in self.config.listeners:
                listener = ClientListener(self, config)
                await listener.open()
                self.listeners[config.name] = listener
            await self.edge.open()
            self._admin_server = await self.admin.start(self._listen_admin, self.config.admin.bind)
            if self.mode != "off":
                await self._open_mesh()
        except OSError:
            self._close_doors()
            raise
        if self.config.ha.enabled:
            await self.registry.start()
        self.keys.start()
        self.state = "serving"
        self.readiness.serving = True
        self._tick()
        self._sweep_round()
        _log.info(
            "hub_ready",
            edge=self.edge.address,
            admin=self.admin_address,
            version=__version__,
            replica=self.replica_id,
            listeners={name: listener.address for name, listener in self.listeners.items()},
        )

    async def _listen_admin(self, factory: Callable[[], asyncio.BaseProtocol], address: Any) -> Any:
        return await self.net.loop.create_server(factory, address.host or None, address.port)

    @property
    def admin_address(self) -> str:
        if self._admin_server is None or not self._admin_server.sockets:
            return ""
        host, port = self._admin_server.sockets[0].getsockname()[:2]
        return str(Address(host, port))

    def request_drain(self) -> None:
        """Asks whoever runs the hub to drain it, as SIGTERM does."""
        self.drain_requested.set()

    def _close_doors(self) -> None:
        for listener in self.listeners.values():
            listener.close()
        self.edge.close()

    async def drain(self) -> None:
        """No new clients; agents and other hubs are told to go elsewhere. Open flows may finish, or move, within
        `drain.timeout_sec`; then they are reset."""
        async with self._reloading:  # what opens listeners is over
            self.state = "draining"
        self.readiness.draining = True
        for listener in self.listeners.values():
            listener.close()
        _log.info(
            "draining",
            flows=len(self.flows),
            relayed=len(self.relays.by_cid),
            agents=len(self.agents.sessions),
            timeout_sec=self.config.drain.timeout_sec,
        )
        for flow in self.router.hold.flows():
            flow.reset(Reason.DRAINING)
        if self.config.ha.enabled:
            self.net.spawn(self.registry.set_draining(), "draining")  # agents are told at once, even if Redis is slow
        for session in self.agents:
            if session.established or session.standing:
                session.link.send(FrameType.GOAWAY, code=Reason.DRAINING)
        if self.mesh is not None:
            self.mesh.say_leaving()
        deadline = self.net.clock() + self.config.drain.timeout_sec
        while (self.flows or self.relays.by_cid or self._delivering()) and self.net.clock() < deadline:
            await asyncio.sleep(0.05)
        await self.stop()

    def _delivering(self) -> bool:
        """Whether sockets of clients are open: what a flow delivered last may still wait for its client."""
        return any(listener.active for listener in self.listeners.values())

    async def stop(self) -> None:
        """Ends everything now; clients whose flows were still open see a reset."""
        self._close_doors()
        for _ in range(2):  # the second time also those whose reset waits behind their bytes
            for flow in list(self.flows.values()):
                flow.reset(Reason.DRAINING)
            await asyncio.sleep(0)  # the resets leave before the tunnels do
        for session in self.agents:
            session.link.fail(Reason.GOING_AWAY, "the hub stops")
        if self.config.ha.enabled:
            await self.registry.aclose()
        await self._close_mesh()
        for timer in self._timers.values():
            timer.cancel()
        self.admin.close()
        if self._admin_server is not None:
            self._admin_server.close()
        await self.keys.aclose()
        await asyncio.sleep(0.05)  # closing frames reach the kernel
        await self.net.cancel_all()
        self.state = "stopped"
        self.readiness.serving = False
        _log.info("stopped", flows_opened=self.stats.flows_opened, flows_closed=sum(self.stats.flows_closed.values()))

    async def reload(self, config: HubConfig, jwt: Jwt) -> None:
        """Takes listeners, keys, certificates, the cluster's mode and log settings from a new configuration; open flows
        are not touched. What else has changed waits for a restart, and the log says so.

        Raises OSError, also when the hub drains, or AuthSetupError; then nothing has changed.
        """
        async with self._reloading:
            if self.state != "serving":
                raise OSError(f"the hub is {self.state}, it takes no new configuration")
            await self._reload(config, jwt)

    async def _reload(self, config: HubConfig, jwt: Jwt) -> None:
        keys = None if self._same_source(jwt) else key_source(jwt, self.net)
        tls = self.edge.load_tls(config.edge.tls)
        old = self.config
        mesh = old.ha.mesh.model_copy(update={name: getattr(config.ha.mesh, name) for name in RELOADED_MESH})
        self.config = old.model_copy(
            update={
                "listeners": config.listeners,
                "logging": config.logging,
                "auth": config.auth,
                "ha": old.ha.model_copy(update={"mode": config.ha.mode, "mesh": mesh}),
                "edge": old.edge.model_copy(update={"tls": config.edge.tls}),
            }
        )
        wanted = {listener.name: listener for listener in config.listeners}
        leaving = [
            name
            for name, listener in self.listeners.items()
            if name not in wanted or wanted[name].bind != listener.config.bind or not listener.bound
        ]
        fresh = {
            name: ClientListener(self, new)
            for name, new in wanted.items()
            if name not in self.listeners or name in leaving
        }
        ready = [one for one in fresh.values() if not self._overlaps(one.config, leaving)]
        try:
            for listener in ready:
                await listener.open()
            await self._use_mode()
        except OSError:
            self.config = old
            for listener in ready:
                listener.close()
            raise
        # nothing can fail from here on, but a port that is handed from one listener to another
        for name in leaving:
            self.listeners.pop(name).close()
        for name, listener in self.listeners.items():
            listener.configure(wanted[name])
        self.listeners.update(fresh)
        for listener in fresh.values():
            if not listener.bound:
                try:
                    await listener.open()
                except OSError as exc:
                    _log.error("listener_down", listener=listener.name, detail=exc.strerror)
        self.edge.use_tls(tls)
        await self._use_keys(jwt, keys)
        if config.ha.mode != old.ha.mode:
            for session in self.agents:
                session.mode_changed()
        log.setup(config.logging.level, config.logging.format, config.logging.mask)
        if later := waits_for_restart(old, config):
            _log.warning("restart_needed", keys=later)
        _log.info("config_reloaded", listeners={name: listener.address for name, listener in self.listeners.items()})

    async def _use_mode(self) -> None:
        """Takes the mode and what a mesh can change from the configuration. Raises OSError, and nothing has changed
        then."""
        if self.mesh is None and self.mode != "off":
            await self._open_mesh()
        elif self.mesh is not None and self.mode != "off":
            self.mesh.configure(self.config)
        elif self.mesh is not None:
            await self._close_mesh()
        self.readiness.mode = self.mode

    def _overlaps(self, new: Any, leaving: list[str]) -> bool:
        """Whether the new listener needs a port that one that leaves still holds."""
        return any(new.bind.overlaps(self.listeners[name].config.bind) for name in leaving)

    def _same_source(self, jwt: Jwt) -> bool:
        return isinstance(self.keys, JwksKeys) and (jwt.jwks_url, jwt.algorithms) == (
            self.jwt.jwks_url,
            self.jwt.algorithms,
        )

    async def _use_keys(self, jwt: Jwt, keys: StaticKeys | JwksKeys | None) -> None:
        old = self.keys
        if keys is None:
            old.reload()
        else:
            self.keys = keys
            keys.start()
        self.jwt = jwt
        self.verifier = Verifier(jwt, self.keys, self.wall_clock)
        self.expiry_grace = jwt.expiry_grace_sec
        if keys is not None:
            await old.aclose()

    # flows

    def flow_refused(self, flow: Flow[ClientInfo], reason: Reason) -> bool:
        """An open was refused; whether it goes elsewhere. False ends the flow."""
        return self.router.refused(flow, reason)

    def flow_resumed(self, flow: Flow[ClientInfo]) -> None:
        """The flow goes on after it had lost its way, or by another."""
        flow.info.resumes += 1
        self.stats.flows_resumed += 1

    def flow_closed(self, flow: Flow[ClientInfo], reason: Reason) -> None:
        """The one place where a flow leaves the hub."""
        info = flow.info
        if self.flows.pop(flow.cid, None) is None:
            return
        path = info.path
        self.router.closed(flow)
        duration = self.net.clock() - info.accepted_at
        self.stats.flows_closed[reason.label] += 1
        self.stats.flow_duration.observe(duration)
        log.access(
            cid=flow.cid.hex(),
            listener=info.listener.name,
            connector=info.listener.config.connector,
            client=info.client,
            agent_id=info.agent_key.partition("/")[2],
            path=path,
            bytes_in=flow.snd_nxt,
            bytes_out=flow.rcv_nxt,
            duration=round(duration, 6),
            resumes=info.resumes,
            reason=reason.label,
        )

    # time

    def _tick(self) -> None:
        self._timers["tick"] = self.net.call_later(TICK, self._tick)  # first: a defect below must not stop the clock
        now = self.net.clock()
        self.agents.tick(now)
        if self.mesh is not None:
            self.mesh.tick(now)
        self.relays.tick(now)
        self.router.tick(now)
        readiness = self.readiness
        readiness.mesh_ok = self.mesh is None or self.mesh.healthy
        readiness.registry_ok = self.registry.is_healthy()
        readiness.jwks_ok = self.keys.healthy
        readiness.memory_pressure = self.context.over_budget
        readiness.fd_pressure = any(listener.out_of_descriptors for listener in self.listeners.values())
        readiness.listeners_down = sum(not listener.bound for listener in self.listeners.values())

    def _sweep_round(self) -> None:
        self._sweep(deque(self.flows.values()))

    def _sweep(self, left: deque[Flow[ClientInfo]]) -> None:
        """Looks after every flow's timers, a slice at a time, so that thousands of idle flows do not delay a busy
        one."""
        now = self.net.clock()
        for _ in range(min(SWEEP_SLICE, len(left))):
            try:
                self.router.look_after(left.popleft(), now)
            except Exception:
                _log.exception("sweep_failed")
        self._timers["sweep"] = (
            self.net.call_later(SWEEP_PAUSE, self._sweep, left)
            if left
            else self.net.call_later(SWEEP_EVERY, self._sweep_round)
        )

    # what others see

    def snapshot(self) -> dict[str, Any]:
        """The hub's state, as GET /status gives it."""
        return snapshot(self)
