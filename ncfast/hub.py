"""The hub: clients in at the listeners, agents in at the edge, flows between them.

One process, one event loop. `flows` holds every flow whose client socket is here; a link holds those it carries. Decisions
are made synchronously, between two callbacks; nothing awaits between reading state and changing it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from ncfast import __version__, log
from ncfast._flow import Flow, FlowContext
from ncfast._frames import FrameType
from ncfast._stream import SocketEnd
from ncfast._websocket import ReceiveBuffer
from ncfast.admin import Admin
from ncfast.auth import Identity, JwksKeys, StaticKeys, Verifier
from ncfast.config import Address, HubConfig, Jwt, waits_for_restart
from ncfast.edge import Edge
from ncfast.errors import Reason
from ncfast.listener import ClientInfo, ClientListener
from ncfast.log import mask_address, mask_identity
from ncfast.messages import Open
from ncfast.net import Net
from ncfast.readiness import Readiness
from ncfast.registry import MemoryRegistry
from ncfast.session import AgentSession
from ncfast.stats import Stats
from ncfast.throttle import Throttle

_log = log.get("hub")

Key = tuple[str | None, str]   # tenant, connector

TICK = 0.5                     # seconds between looks at the tunnels' timers
SWEEP_SLICE = 256              # flows looked at in one go, about 0.1 ms
SWEEP_PAUSE = 0.02             # seconds between two slices
SWEEP_EVERY = 0.5              # seconds between two rounds
STARTUP_HOLD = 5.0             # seconds after start in which every agent counts as reconnecting, as after a restart they all are
ROUTE_MEMORY = 4096            # connectors of departed agents remembered, to hold clients for them


def key_source(jwt: Jwt, net: Net) -> StaticKeys | JwksKeys:
    """The keys that the configuration names. Raises AuthSetupError."""
    if jwt.jwks_url is not None:
        return JwksKeys(jwt.jwks_url, jwt.algorithms, rng=net.rng)
    return StaticKeys.from_file(jwt.key_file, jwt.algorithms)


class Hub:
    """`await start()`, then it serves until `await drain()` or `await stop()`."""

    def __init__(self, config: HubConfig, jwt: Jwt, net: Net, wall_clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.net = net
        self.wall_clock = wall_clock
        self.stats = Stats()
        self.readiness = Readiness(mode=config.ha.mode if config.ha.enabled else "off")
        self.replica_id = config.ha.replica_id or "hub"
        self.registry = MemoryRegistry()
        self.context = FlowContext(net.clock, budget=config.limits.memory_bytes, window_initial=config.flow.window_initial,
                                   window_max=config.flow.window_max, seed=int.from_bytes(net.entropy(8)))
        self.context.owner = self
        self.context.retains = net.retains
        self.receive_buffer = ReceiveBuffer()
        self.jwt = jwt
        self.keys = key_source(jwt, net)
        self.verifier = Verifier(jwt, self.keys, wall_clock)
        self.expiry_grace = jwt.expiry_grace_sec
        self.open_throttle = Throttle(config.limits.opens_per_source_per_sec, net.clock)
        self.edge = Edge(self)
        self.admin = Admin(self, net.loop)
        self.listeners: dict[str, ClientListener] = {}
        self.sessions: set[AgentSession] = set()
        self.flows = self.context.flows
        self.drain_requested = asyncio.Event()
        self._reloading = asyncio.Lock()
        self.state = "starting"
        self.started_at = net.clock()
        self._agents: dict[str, AgentSession] = {}     # the current session of each agent
        self._flows_of: dict[str, set[Flow]] = {}      # by agent
        self._routes: dict[Key, list[AgentSession]] = {}
        self._departed: dict[Key, float] = {}          # when the last agent of a connector was lost
        self._held: dict[Key, deque[tuple[Flow, float]]] = {}
        self._held_count: Counter[str] = Counter()     # by listener
        self._instance = net.entropy(8)                # first half of every cid: unique across hubs and restarts
        self._flow_number = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._frames_of_ended: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._bytes_of_ended = [0, 0]
        self._stale_of_ended = 0
        self._admin_server: Any = None

    # life

    async def start(self) -> None:
        """Binds everything and begins to serve. Raises OSError when a port cannot be bound; nothing stays open then."""
        try:
            for config in self.config.listeners:
                listener = ClientListener(self, config)
                await listener.open()
                self.listeners[config.name] = listener
            await self.edge.open()
            self._admin_server = await self.admin.start(self._listen_admin, self.config.admin.bind)
        except OSError:
            self._close_doors()
            raise
        self.keys.start()
        self.state = "serving"
        self.readiness.serving = True
        self._tick()
        self._sweep_round()
        _log.info("hub_ready", edge=self.edge.address, admin=self.admin_address, version=__version__, replica=self.replica_id,
                  listeners={name: listener.address for name, listener in self.listeners.items()})

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
        """No new clients and agents; open flows may finish within `drain.timeout_sec`, then they are reset."""
        self.state = "draining"
        self.readiness.draining = True
        for listener in self.listeners.values():
            listener.close()
        _log.info("draining", flows=len(self.flows), agents=len(self.sessions), timeout_sec=self.config.drain.timeout_sec)
        for queue in list(self._held.values()):
            for flow, _ in list(queue):
                flow.reset(Reason.DRAINING)
        for session in list(self.sessions):
            if session.established:
                session.link.send(FrameType.GOAWAY, code=Reason.DRAINING)
        deadline = self.net.clock() + self.config.drain.timeout_sec
        while self.flows and self.net.clock() < deadline:
            await asyncio.sleep(0.05)
        await self.stop()

    async def stop(self) -> None:
        """Ends everything now; clients whose flows were still open see a reset."""
        self._close_doors()
        for _ in range(2):                             # the second time also those whose reset waits behind their bytes
            for flow in list(self.flows.values()):
                flow.reset(Reason.DRAINING)
            await asyncio.sleep(0)                     # the resets leave before the tunnels do
        for session in list(self.sessions):
            session.link.fail(Reason.GOING_AWAY, "the hub stops")
        for timer in self._timers.values():
            timer.cancel()
        self.admin.close()
        if self._admin_server is not None:
            self._admin_server.close()
        await self.keys.aclose()
        await asyncio.sleep(0.05)                      # closing frames reach the kernel
        await self.net.cancel_all()
        self.state = "stopped"
        self.readiness.serving = False
        _log.info("stopped", flows_opened=self.stats.flows_opened, flows_closed=sum(self.stats.flows_closed.values()))

    async def reload(self, config: HubConfig, jwt: Jwt) -> None:
        """Takes listeners, keys, certificates and log settings from a new configuration; open flows are not touched.
        What else has changed waits for a restart, and the log says so.

        Raises OSError or AuthSetupError, and then nothing has changed.
        """
        async with self._reloading:
            await self._reload(config, jwt)

    async def _reload(self, config: HubConfig, jwt: Jwt) -> None:
        keys = None if self._same_source(jwt) else key_source(jwt, self.net)
        tls = self.edge.load_tls(config.edge.tls)
        old = self.config
        self.config = old.model_copy(update={
            "listeners": config.listeners, "logging": config.logging, "auth": config.auth,
            "edge": old.edge.model_copy(update={"tls": config.edge.tls})})
        wanted = {listener.name: listener for listener in config.listeners}
        leaving = [name for name, listener in self.listeners.items()
                   if name not in wanted or wanted[name].bind != listener.config.bind or not listener.bound]
        fresh = {name: ClientListener(self, new) for name, new in wanted.items() if name not in self.listeners or name in leaving}
        ready = [one for one in fresh.values() if not self._overlaps(one.config, leaving)]
        try:
            for listener in ready:
                await listener.open()
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
        log.setup(config.logging.level, config.logging.format, config.logging.mask)
        if later := waits_for_restart(old, config):
            _log.warning("restart_needed", keys=later)
        _log.info("config_reloaded", listeners={name: listener.address for name, listener in self.listeners.items()})

    def _overlaps(self, new: Any, leaving: list[str]) -> bool:
        """Whether the new listener needs a port that one that leaves still holds."""
        return any(new.bind.overlaps(self.listeners[name].config.bind) for name in leaving)

    def _same_source(self, jwt: Jwt) -> bool:
        return isinstance(self.keys, JwksKeys) and (jwt.jwks_url, jwt.algorithms) == (self.jwt.jwks_url, self.jwt.algorithms)

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

    # clients

    def client_ready(self, end: SocketEnd, info: ClientInfo) -> None:
        """A client's socket is there: give it a flow and a way."""
        self._flow_number += 1
        cid = self._instance + self._flow_number.to_bytes(8, "big")
        secret = self.net.entropy(16)
        client_host, _, client_port = info.client.rpartition(":")
        local = end.transport.get_extra_info("sockname") or ("", 0)
        body = Open(connector=info.listener.config.connector, listener=info.listener.name, secret=secret.hex(),
                    origin=self.replica_id, client=(client_host, int(client_port or 0), local[0], local[1])).pack()
        flow = Flow(self.context, cid, secret, body, info)
        self.flows[cid] = flow
        self.stats.flows_opened += 1
        self.stats.accepted[info.listener.name] += 1
        end.carry(flow)
        if info.listener.key in self._held or not self._dispatch(flow):
            self._hold_or_refuse(flow)                 # behind those who wait already

    def _dispatch(self, flow: Flow) -> bool:
        """Sends the open to the least loaded agent that serves it and was not tried yet."""
        info = flow.info
        cap = self.config.limits.pending_opens_per_agent
        candidates = [session for session in self._routes.get(info.listener.key, ())
                      if session.opening < cap and session.key not in info.tried and session.serves(*info.listener.key)]
        if not candidates:
            return False
        least = min(session.load for session in candidates)
        session = self.net.rng.choice([one for one in candidates if one.load == least]) if len(candidates) > 1 else candidates[0]
        info.session = session
        info.agent_key = session.key
        info.instance = session.instance
        info.tried.add(session.key)
        self._flows_of.setdefault(session.key, set()).add(flow)
        session.opening += 1
        session.link.add(flow)
        flow.attach(session.link, resumed=True)
        return True

    def _hold_or_refuse(self, flow: Flow) -> None:
        """While the connector's agents are reconnecting, or have all the opens they may have in progress, a client waits,
        in a bounded queue for a bounded time."""
        info = flow.info
        config = info.listener.config
        key = info.listener.key
        now = self.net.clock()
        lost_at = self._departed.get(key)
        hopeful = ((lost_at is not None and now - lost_at < self.config.flow.grace_sec) or now - self.started_at < STARTUP_HOLD
                   or any(session.serves(*key) for session in self._routes.get(key, ())))
        if not hopeful or not config.hold_sec or self._held_count[info.listener.name] >= config.hold_max:
            reason = Reason.OVERLOADED if hopeful else Reason.NO_AGENT
            self.stats.opens_refused[reason.label] += 1
            flow.reset(reason)
            return
        self._held.setdefault(key, deque()).append((flow, now + config.hold_sec))
        self._held_count[info.listener.name] += 1

    def _release_held(self, key: Key) -> None:
        queue = self._held.pop(key, None)
        while queue:
            flow, deadline = queue.popleft()
            self._held_count[flow.info.listener.name] -= 1
            if flow.closed:
                continue
            if not self._dispatch(flow):
                queue.appendleft((flow, deadline))
                self._held_count[flow.info.listener.name] += 1
                self._held[key] = queue
                return

    def _expire_held(self, now: float) -> None:
        for key, queue in list(self._held.items()):
            while queue and (queue[0][0].closed or queue[0][1] <= now):
                flow, _ = queue.popleft()
                self._held_count[flow.info.listener.name] -= 1
                if not flow.closed:
                    self.stats.opens_refused[Reason.HOLD_TIMEOUT.label] += 1
                    flow.reset(Reason.HOLD_TIMEOUT)
            if not queue:
                self._held.pop(key, None)

    # flows

    def flow_opened(self, flow: Flow) -> None:
        """The target is connected."""
        info = flow.info
        info.opened = True
        if info.session is not None:
            info.session.opening -= 1
        self.stats.open_latency.observe(self.net.clock() - info.accepted_at)
        if self._held:
            self._release_held(info.listener.key)

    def flow_refused(self, flow: Flow, reason: Reason) -> bool:
        """The agent could not open; the target has seen nothing, so another agent may try. False ends the flow."""
        info = flow.info
        if info.session is not None:
            info.session.opening -= 1
            info.session = None
        self._leave_agent(flow)
        flow.reopen()
        if self._dispatch(flow):
            self.stats.flows_retried += 1
            return True
        return False

    def flow_closed(self, flow: Flow, reason: Reason) -> None:
        """The one place where a flow leaves the hub."""
        info = flow.info
        if self.flows.pop(flow.cid, None) is None:
            return
        if not info.opened and info.session is not None:
            info.session.opening -= 1
        self._leave_agent(flow)
        duration = self.net.clock() - info.accepted_at
        self.stats.flows_closed[reason.label] += 1
        self.stats.flow_duration.observe(duration)
        log.access(cid=flow.cid.hex(), listener=info.listener.name, connector=info.listener.config.connector, client=info.client,
                   agent_id=info.agent_key.partition("/")[2], path="local", bytes_in=flow.snd_nxt, bytes_out=flow.rcv_nxt,
                   duration=round(duration, 6), resumes=info.resumes, reason=reason.label)

    def _leave_agent(self, flow: Flow) -> None:
        flows = self._flows_of.get(flow.info.agent_key)
        if flows is not None:
            flows.discard(flow)
            if not flows:
                del self._flows_of[flow.info.agent_key]

    # agents

    def claim(self, session: AgentSession, last_epoch: int) -> int:
        """Makes the session the agent's one and only, under a new epoch; the newest always wins."""
        epoch = self.registry.claim_ownership(session.key, self.replica_id, last_epoch)
        old = self._agents.get(session.key)
        self._agents[session.key] = session
        if old is not None:
            if old.instance != session.instance:
                log.security("agent_superseded", agent_id=session.agent_id, remote=session.remote)
            old.link.fail(Reason.SUPERSEDED, "a newer session of the same agent")
        return epoch

    def agent_up(self, session: AgentSession) -> None:
        """The session serves from now on; what waited for its agent goes on."""
        for flow in list(self._flows_of.get(session.key, ())):
            info = flow.info
            if flow.attached:
                continue
            if info.instance != session.instance:
                flow.reset(Reason.AGENT_RESTARTED)
            elif flow.opening:
                info.session = session
                session.opening += 1
                session.link.add(flow)
                flow.attach(session.link, resumed=True)
        self.connectors_changed(session)

    def connectors_changed(self, session: AgentSession) -> None:
        """Routes follow what the session announces."""
        tenant = session.identity.tenant
        self._forget_routes(session)
        for connector in session.connectors:
            self._routes.setdefault((tenant, connector), []).append(session)
            self._departed.pop((tenant, connector), None)
        for connector in session.connectors:
            self._release_held((tenant, connector))

    def agent_leaves(self, session: AgentSession) -> None:
        """No new flows for the session. If it was a connector's last, clients are held in the hope that it comes back."""
        before = set(self._routes)
        self._forget_routes(session)
        for key in before - set(self._routes):
            self._departed[key] = self.net.clock()
        while len(self._departed) > ROUTE_MEMORY:
            del self._departed[next(iter(self._departed))]

    def _forget_routes(self, session: AgentSession) -> None:
        for key, sessions in list(self._routes.items()):
            if session in sessions:
                sessions.remove(session)
                if not sessions:
                    del self._routes[key]

    def session_ended(self, session: AgentSession, reason: Reason) -> None:
        """The tunnel is gone; its flows have detached and wait for the agent."""
        self.sessions.discard(session)
        self.stats.tunnels_closed[reason.label] += 1
        if reason in (Reason.PROTOCOL_ERROR, Reason.MESSAGE_TOO_BIG, Reason.FLOOD, Reason.VERSION):
            self.stats.protocol_errors[reason.label] += 1
        for total, counts in zip(self._frames_of_ended, session.link.counters(), strict=True):
            total.update(counts)
        self._bytes_of_ended[0] += session.link.bytes_in
        self._bytes_of_ended[1] += session.link.bytes_out
        self._stale_of_ended += session.link.stale_epoch
        if self._agents.get(session.key) is session:
            del self._agents[session.key]
            self.registry.release(session.key, session.epoch)
        if not session.established:
            return
        self.agent_leaves(session)
        if session.opening:
            session.opening = 0                        # its opens are detached and count again when they are re-sent
            for flow in self._flows_of.get(session.key, ()):
                if flow.info.session is session:
                    flow.info.session = None

    # time

    def _tick(self) -> None:
        self._timers["tick"] = self.net.call_later(TICK, self._tick)   # first: a defect below must not stop the clock
        now = self.net.clock()
        for session in list(self.sessions):
            try:
                session.tick(now)
            except Exception:
                _log.exception("tick_failed")
        for key in list(self._held):
            self._release_held(key)
        self._expire_held(now)
        self.readiness.jwks_ok = self.keys.healthy
        self.readiness.memory_pressure = self.context.over_budget
        self.readiness.fd_pressure = any(listener.out_of_descriptors for listener in self.listeners.values())
        self.readiness.listeners_down = sum(not listener.bound for listener in self.listeners.values())

    def _sweep_round(self) -> None:
        self._sweep(deque(self.flows.values()))

    def _sweep(self, left: deque[Flow]) -> None:
        """Looks after every flow's timers, a slice at a time, so that thousands of idle flows do not delay a busy one."""
        now = self.net.clock()
        for _ in range(min(SWEEP_SLICE, len(left))):
            try:
                self._look_after(left.popleft(), now)
            except Exception:
                _log.exception("sweep_failed")
        self._timers["sweep"] = (self.net.call_later(SWEEP_PAUSE, self._sweep, left) if left
                                 else self.net.call_later(SWEEP_EVERY, self._sweep_round))

    def _look_after(self, flow: Flow, now: float) -> None:
        reason = flow.check(now, flow.info.timeouts)
        if reason is Reason.STALLED:                   # the link's fault: it is cut, and its flows resume on the next
            if flow.attached:
                flow.path.fail(reason, "bytes were sent and not acknowledged")
        elif reason is not None:
            flow.reset(reason)
        elif flow.detached_at >= 0 and self._forgotten(flow, now):
            flow.reset(Reason.LINK_LOST)

    def _forgotten(self, flow: Flow, now: float) -> bool:
        """The agent is back, in the same process, and has not asked for this flow: it has it no longer."""
        session = self._agents.get(flow.info.agent_key)
        return (session is not None and session.established and not flow.opening and not flow.attached
                and session.instance == flow.info.instance and now >= session.resuming_until)

    def awaits(self, identity: Identity) -> bool:
        """Whether flows wait for this agent: it may come in even while the hub drains."""
        return identity.key in self._flows_of

    # what others see

    def snapshot(self) -> dict[str, Any]:
        """The hub's state, as GET /status gives it; addresses and identities masked as the log masks them."""
        now = self.net.clock()
        stats = self.stats
        frames_in, frames_out = (Counter(total) for total in self._frames_of_ended)
        bytes_in, bytes_out = self._bytes_of_ended
        agents = []
        for session in self.sessions:
            link = session.link
            one_in, one_out = link.counters()
            frames_in.update(one_in)
            frames_out.update(one_out)
            bytes_in += link.bytes_in
            bytes_out += link.bytes_out
            agents.append({
                "agent_id": mask_identity(session.agent_id), "tenant": session.identity.tenant, "epoch": session.epoch,
                "session": session.session_id, "connectors": sorted(session.connectors), "remote": mask_address(session.remote),
                "rtt_ms": round(link.rtt * 1000, 3), "flows": session.load, "bytes_in": link.bytes_in, "bytes_out": link.bytes_out,
                "connected_sec": round(now - session.started_at, 3), "queued_frames": link.queued, "inflight_bytes": link.inflight,
                "token_expires_sec": round(session.identity.expires_at - self.wall_clock(), 1), "draining": session.draining,
            })
        stats.frames_in, stats.frames_out = frames_in, frames_out
        context = self.context
        stats.cid_dedup_dropped = context.duplicates
        stats.epoch_mismatch = self._stale_of_ended + sum(session.link.stale_epoch for session in self.sessions)
        stats.client_bytes_in, stats.client_bytes_out = context.bytes_read, context.bytes_in
        stats.bytes_discarded = context.discarded
        return {
            "role": "hub", "version": __version__, "replica_id": self.replica_id, "mode": self.readiness.mode, "pid": os.getpid(),
            "uptime_sec": round(now - self.started_at, 3), "state": self.state, "ready": self.readiness.status(),
            "edge": self.edge.address, "admin": self.admin_address,
            "listeners": [{
                "name": one.name, "bind": one.address, "connector": one.config.connector, "tenant": one.config.tenant,
                "active": one.active, "accepted": stats.accepted[one.name], "held": self._held_count[one.name],
                "accepting": one.accepting} for one in self.listeners.values()],
            "agents": agents,
            "flows": {
                "active": len(self.flows), "opening": sum(flow.opening for flow in self.flows.values()),
                "detached": sum(flow.detached_at >= 0 for flow in self.flows.values()), "held": sum(self._held_count.values()),
                "opened": stats.flows_opened, "closed": dict(stats.flows_closed), "resumed": stats.flows_resumed},
            "bytes": {"client_in": stats.client_bytes_in, "client_out": stats.client_bytes_out},
            "memory": {"budget_bytes": context.budget, "held_bytes": context.held, "segments_in_use": context.pool.in_use,
                       "segments_free": context.pool.free_count},
            "links": {"frames_in": dict(frames_in), "frames_out": dict(frames_out), "bytes_in": bytes_in, "bytes_out": bytes_out},
        }
