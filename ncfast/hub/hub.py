"""The hub: its rooms put together, and their life: start, drain, stop, the clock.

One process, one event loop. Clients come in at the listeners, agents at the edge, other hubs over the mesh. Decisions
are made synchronously, between two callbacks; nothing awaits between reading state and changing it.

    ground                  configuration, seam, counters, who we are: under every room
    sessions, claims        the agents whose tunnels end here, and how they come to be ours
    routing, steering       our clients' flows: to which agent, and by which way
    resuming                the same flows, asked for on a new way
    relays                  other hubs' flows to agents of ours
    ways, cluster           the links to other hubs
    level                   agents that are asked to move to them
    sampler                 what the page's curves are drawn from
    lockout, review         agents that are locked out, and tunnels whose token counts no longer
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ncfast import __version__
from ncfast._frames import FrameType
from ncfast.config.hub import HubConfig, Jwt, Listener
from ncfast.core.errors import Reason
from ncfast.core.timeouts import STOOD_STILL
from ncfast.hub.admin import Admin
from ncfast.hub.claims import Claims
from ncfast.hub.client import ClientFlow
from ncfast.hub.closing import Closing
from ncfast.hub.cluster import Cluster, mesh_url
from ncfast.hub.edge import Edge
from ncfast.hub.flows import Flows
from ncfast.hub.ground import Ground
from ncfast.hub.level import Level
from ncfast.hub.listener import ClientListener
from ncfast.hub.lockout import Lockout
from ncfast.hub.passing import Passing
from ncfast.hub.pending import PendingOpens
from ncfast.hub.relays import Relays
from ncfast.hub.reload import Reload
from ncfast.hub.resuming import Resuming
from ncfast.hub.review import Review
from ncfast.hub.routing import Router
from ncfast.hub.sampler import Sampler
from ncfast.hub.sessions import Sessions
from ncfast.hub.snapshot import Snapshot
from ncfast.hub.steering import Steering
from ncfast.hub.taking import Heritage, Taking
from ncfast.hub.tokens import Tokens
from ncfast.hub.ways import Ways
from ncfast.net.handover import NoHeritage
from ncfast.net.seam import Net
from ncfast.net.throttle import Throttle
from ncfast.observe import log
from ncfast.observe.history import History
from ncfast.observe.readiness import State
from ncfast.observe.upgrading import Upgrades
from ncfast.registry import DistributedRegistry, Replica, make_registry

if TYPE_CHECKING:
    from ncfast.net.channel import Channel

_log = log.get("hub")

TICK = 0.5  # seconds between looks at the timers of tunnels and mesh links
SWEEP_SLICE = 64  # flows looked at in one go; 256 took up to 1.7 ms on a busy machine
SWEEP_PAUSE = 0.005  # seconds between two slices
SWEEP_EVERY = 0.5  # seconds between two rounds


class Hub:
    """`await start()`, then it serves until `await drain()` or `await stop()`."""

    def __init__(
        self,
        config: HubConfig,
        jwt: Jwt,
        net: Net,
        wall_clock: Callable[[], float] = time.time,
        make: Callable[..., DistributedRegistry] = make_registry,
        heritage: Heritage | None = None,
    ) -> None:
        """With `heritage` it is the hub that another process has been. Raises AuthSetupError for keys, OSError for
        certificates that cannot be used, NoHeritage for a configuration that is another hub's."""
        ground = self.ground = Ground(config, net, wall_clock, heritage.instance if heritage is not None else None)
        self.net = net
        self.stats = ground.stats
        self.readiness = ground.readiness
        self.flows = ground.flows
        ground.context.owner = self
        self.tokens = Tokens(jwt, net, wall_clock)
        self._opens = Throttle(config.limits.opens_per_source_per_sec, net.clock)
        replica = Replica(ground.replica_id, ground.instance.hex(), mesh_url(config.ha), weight=config.ha.level.weight)
        registry = self.registry = make(config.ha, replica, net, ground.stats, wall_clock)
        pending = self.pending = PendingOpens(config.limits.pending_opens_per_agent)
        ways = self.ways = Ways(ground, registry)
        sessions = self.sessions = Sessions()
        steering = self.steering = Steering(ground, sessions, registry, ways, pending)
        self._closing = Closing(ground, steering)
        router = self.router = Router(ground, sessions, registry, ways, pending, steering)
        resuming = Resuming(ground, sessions, registry, steering)
        relays = self.relays = Relays(ground, sessions, ways, pending)
        self.level = Level(ground, sessions, registry, ways)
        self.claims = Claims(ground, sessions, registry, steering, router, resuming, relays, self.level)
        self.cluster = Cluster(ground, registry, ways, steering, router, resuming, relays)
        self.edge = Edge(ground, ways, sessions, self.tokens, self.claims)
        self.sampler = Sampler(ground, ways)
        self.lockout = Lockout(ground, sessions, registry, steering, relays)
        self.tokens.on_change = Review(ground, sessions, self.tokens, self.lockout).begin
        self.flow_list = Flows(ground, relays)
        self.listeners: dict[str, ClientListener] = {}
        self.snapshot = Snapshot(
            ground,
            sessions,
            router,
            relays,
            ways,
            registry,
            self.level,
            self.edge,
            self.listeners,
            lambda: self.admin_address,
        )
        self.admin = Admin(self, net)
        self.passing = Passing(ground, steering, self.listeners, self._make_listener, router.returns)
        if heritage is not None:
            self._inherit(heritage)
        self._reload = Reload(
            ground, sessions, self.tokens, self.cluster, self.edge, self.listeners, self._make_listener
        )
        self.drain_requested = asyncio.Event()
        self.upgrades: Upgrades | None = None  # whoever runs the hub sets it
        self._delay_over = asyncio.Event()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._linger: Callable[[], Awaitable[None]]

    def _inherit(self, heritage: Heritage) -> None:
        ground = self.ground
        if heritage.replica_id != ground.replica_id:
            raise NoHeritage(
                f"ha.replica_id is {ground.replica_id}, and the hub that runs is {heritage.replica_id}: drain that"
            )
        self.router.flow_number = heritage.number
        self.router.departs(heritage.departed)
        for lock in heritage.locks:
            ground.locks.take(lock)
        Taking(self, heritage)

    def _make_listener(self, config: Listener) -> ClientListener:
        return ClientListener(self.ground, config, self._opens, self.router.client_ready)

    # life

    async def start(self) -> None:
        """Binds everything and begins to serve. Raises OSError when a port cannot be bound; nothing stays open then."""
        config, registry = self.ground.config, self.registry
        registry.on_agents = self.router.changed
        registry.on_replicas = self.cluster.replicas_changed
        registry.on_fenced = self.claims.fenced
        try:
            for one in config.listeners:
                listener = self._make_listener(one)
                await listener.open()
                if self.ground.taking is not None:
                    listener.hold()
                self.listeners[one.name] = listener
            await self.edge.open()
            if self.ground.taking is not None:
                self.edge.hold()  # agents wait in the kernel's queue until we serve
            await self.admin.start(config.admin)
            self.ground.shows("admin", config.admin.tls.cert_file if config.admin.tls is not None else None)
            if self.ground.taking is None:
                await self.cluster.follow_mode()
        except OSError:
            self._close_doors()
            raise
        if config.ha.enabled:
            await registry.start()
        self.tokens.start()
        self.readiness.move(State.SERVING)
        self.edge.go_on()
        self._tick()
        self._sweep_due = self.net.clock()
        self._sweep_round()
        _log.info(
            "hub_ready",
            edge=self.edge.address,
            admin=self.admin_address,
            version=__version__,
            replica=self.ground.replica_id,
            listeners={name: listener.address for name, listener in self.listeners.items()},
        )

    @property
    def config(self) -> HubConfig:
        """The one in force."""
        return self.ground.config

    @property
    def admin_address(self) -> str:
        return self.admin.address

    @property
    def history(self) -> History:
        """The last quarter of an hour."""
        return self.sampler.history

    def move_agent(self, agent: str, hub: str | None) -> str:
        """As `Level.move`."""
        return self.level.move(agent, hub)

    def request_drain(self, *, at_once: bool = False) -> bool:
        """Asks whoever runs the hub to drain it, as SIGTERM does; `at_once` without `drain.delay_sec`, or what is left
        of it. False: it drains already."""
        if at_once and not self.readiness.draining:
            news = not self._delay_over.is_set()
            self._delay_over.set()
        else:
            news = not self.drain_requested.is_set()
        self.drain_requested.set()
        return news

    async def reload(self, config: HubConfig, jwt: Jwt) -> None:
        """As `Reload.apply`."""
        await self._reload.apply(config, jwt)

    # upgrades

    async def hand_over(self, channel: Channel) -> None:
        """As `Giving.give`: to another process of this hub, at the other end of the channel. Afterwards `linger` and
        `stop`. Raises HandoverFailed."""
        from ncfast.hub.giving import Giving  # once in a process's life

        giving = Giving(self, channel)
        async with self._reload.lock:
            await giving.give()
        self._close_doors()  # if the successor goes while we linger, the next process is to have them
        self.admin.shut()
        await self.cluster.close()
        self._linger = giving.linger

    def upgrade_failed(self) -> None:
        """This process goes on, with what its successor, which is dead, had not taken."""
        if self.ground.giving is not None:
            self.ground.giving.take_back()
        self.stats.handovers["failed"] += 1

    async def linger(self) -> None:
        """As `Giving.linger`."""
        await self._linger()

    def take_over(self, channel: Channel) -> None:
        """All is bound, as `start` does it: from the process at the other end of the channel, which `heritage` was
        of."""
        assert self.ground.taking is not None  # the hub was made with a heritage
        self.cluster.prepare()
        self.ground.taking.take_over(channel)

    async def join_mesh(self) -> None:
        """The predecessor has left it."""
        async with self._reload.lock:  # of a reload, too, may open it
            try:
                await self.cluster.follow_mode()
            except OSError as exc:
                self.ways.inherited = False
                _log.error("mesh_down", detail=str(exc))

    def hold_doors(self) -> None:
        """Agents, other hubs and operators wait in the kernel's queue."""
        self.edge.hold()
        self.admin.hold()

    def open_doors(self) -> None:
        """After `hold_doors`, and whatever else was held."""
        self.edge.go_on()
        self.admin.go_on()
        for listener in self.listeners.values():
            listener.go_on()

    def _close_doors(self) -> None:
        for listener in self.listeners.values():
            listener.close()
        self.edge.close()

    async def drain(self) -> None:
        """For `drain.delay_sec` only `/readyz` changes. Then no new clients; agents and other hubs are told to go
        elsewhere. Open flows may finish, or move, within `drain.timeout_sec`; then they are reset."""
        config = self.ground.config
        async with self._reload.lock:  # what opens listeners is over
            if config.drain.delay_sec and not self._delay_over.is_set():
                self.readiness.move(State.LEAVING)
        if self.readiness.leaving:
            relayed = len(self.relays.by_cid)
            _log.info("leaving", flows=len(self.flows), relayed=relayed, delay_sec=config.drain.delay_sec)
            await self._delay(config.drain.delay_sec)
        self.readiness.move(State.DRAINING)
        for listener in self.listeners.values():
            listener.close()
            listener.turn_away(Reason.DRAINING.label)
        _log.info(
            "draining",
            flows=len(self.flows),
            relayed=len(self.relays.by_cid),
            agents=len(self.sessions),
            timeout_sec=config.drain.timeout_sec,
        )
        for flow in self.router.hold.flows():
            flow.reset(Reason.DRAINING)
        if config.ha.enabled:
            self.net.spawn(self.registry.set_draining(), "draining")  # agents are told at once, even if Redis is slow
        for session in self.sessions:
            if session.known:
                session.link.send(FrameType.GOAWAY, code=Reason.DRAINING)
        self.cluster.say_leaving()
        deadline = self.net.clock() + config.drain.timeout_sec
        while (self.flows or self.relays.by_cid or self._delivering()) and self.net.clock() < deadline:
            await asyncio.sleep(0.05)
        await self.stop()

    async def _delay(self, seconds: float) -> None:
        timer = self.net.call_later(seconds, self._delay_over.set)
        try:
            await self._delay_over.wait()
        finally:
            timer.cancel()

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
        for session in self.sessions:
            session.link.fail(Reason.GOING_AWAY, "the hub stops")
        if self.ground.config.ha.enabled:
            await self.registry.aclose()
        await self.cluster.close()
        for timer in self._timers.values():
            timer.cancel()
        self.admin.close()
        await self.tokens.aclose()
        await asyncio.sleep(0.05)  # closing frames reach the kernel
        await self.net.cancel_all()
        self.readiness.move(State.STOPPED)
        _log.info("stopped", flows_opened=self.stats.flows_opened, flows_closed=sum(self.stats.flows_closed.values()))

    # flows

    def flow_refused(self, flow: ClientFlow, reason: Reason) -> bool:
        """An open was refused; whether it goes elsewhere. False ends the flow."""
        return self.router.refused(flow, reason)

    def flow_resumed(self, flow: ClientFlow) -> None:
        """The flow goes on after it had lost its way, or by another."""
        info = flow.info
        info.resumes += 1
        self.stats.flows_resumed += 1
        if info.lost_at >= 0:
            pause, info.lost_at = self.net.clock() - info.lost_at, -1.0
            self.stats.handover_pause.observe(pause)
            if self.ground.taking is not None:
                self.ground.taking.resumed(pause)

    def flow_closed(self, flow: ClientFlow, reason: Reason) -> None:
        """The one place where a flow leaves the hub."""
        if self.flows.pop(flow.cid, None) is not None:
            self._closing.over(flow, reason)

    # time

    def _tick(self) -> None:
        self._timers["tick"] = self.net.call_later(TICK, self._tick)  # first: a defect below must not stop the clock
        now = self.net.clock()
        self.claims.tick()
        self.cluster.tick(now)
        self.level.tick(now)
        self.lockout.tick()
        self.relays.tick(now)
        self.router.tick(now)
        self.sampler.tick(now)
        readiness, mesh = self.readiness, self.ways.mesh
        readiness.mesh_ok = mesh is None or mesh.healthy
        readiness.registry_ok = self.registry.is_healthy()
        readiness.jwks_ok = self.tokens.healthy
        shares = [one.share for one in self.listeners.values()]
        readiness.memory_pressure = bool(shares) and all(share.pressed for share in shares)
        readiness.fd_pressure = any(listener.out_of_descriptors for listener in self.listeners.values())
        readiness.listeners_down = sum(not listener.bound for listener in self.listeners.values())

    def _sweep_round(self) -> None:
        self._sweep(deque(self.ground.context.due(self.net.clock())))

    def _sweep(self, left: deque[ClientFlow]) -> None:
        """Looks after every flow's timers, a slice at a time, so that thousands of idle flows do not delay a busy
        one."""
        now = self.net.clock()
        if now - self._sweep_due >= STOOD_STILL:
            left.clear()  # what came meanwhile is yet to be read; the next round judges
        for _ in range(min(SWEEP_SLICE, len(left))):
            try:
                self.router.look_after(left.popleft(), now)
            except Exception:
                _log.exception("sweep_failed")
        pause = SWEEP_PAUSE if left else SWEEP_EVERY
        self._sweep_due = now + pause
        self._timers["sweep"] = (
            self.net.call_later(pause, self._sweep, left) if left else self.net.call_later(pause, self._sweep_round)
        )
