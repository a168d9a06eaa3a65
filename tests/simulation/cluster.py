"""An installation from a plan: hosts, processes, programs; the faults as they happen, and what each of them excuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ncfast.config.agent import AgentConfig
from ncfast.config.hub import HubConfig, Jwt
from ncfast.hub.hub import Hub
from ncfast.hub.level import MoveRefused

from .forgery import Forger
from .kernel import NEVER, Host, Kernel, Socket
from .loop import World
from .plan import AgentShape, Fault, Plan, TripPlan, agent_name
from .processes import WALL, AgentProcess, Files, HubProcess, Life, Process
from .programs import CLONE, Clients, TargetServer, Trip
from .registry import Redis
from .workloads import PROBE

EDGE_PORT = 8080
MESH_PORT = 7000
TARGET_PORT = 636
RESTART = 0.5  # seconds until a supervisor starts again what has died
AT_ONCE = (0.0001, 0.001)  # seconds that a process takes to load which is to hand over while another does
LOOK = 0.0001  # seconds between two looks at whether it has
START = 1000.0  # the world's time at which a plan begins


@dataclass(slots=True)
class Outage:
    """From `since` to `until` a way between these hosts could not be used as it should; `until` grows while it
    lasts."""

    hosts: frozenset[str]
    since: float
    until: float
    silent: bool = False  # a process stood still, and nobody was told


class Cluster:
    """Everything of one seed."""

    def __init__(self, plan: Plan, world: World, files: Files) -> None:
        self.plan = plan
        self.world = world
        shape = plan.shape
        self.kernel = Kernel(
            world, segment=shape.segment, send_buffer=shape.kernel_buffer, receive_buffer=shape.kernel_buffer
        )
        self.kernel.default_latency = shape.lan
        self.clients_host = self.kernel.host("clients")
        self.jwt = Jwt(algorithms=["HS256"], key_file=files.key)
        self.outages: list[Outage] = []
        self.fatal: list[tuple[float, float, str]] = []  # (from, to, process): what ran there then may be lost
        self.unreachable: list[
            tuple[float, float, str, str]
        ] = []  # (from, to, target, agent or "" for all): opens may fail
        self.drains: list[tuple[float, float, str]] = []  # (from, to, process): it was asked to end, and has
        self.leaving: dict[str, float] = {}  # processes that were asked to end and have not yet, and since when
        self.modes: list[tuple[float, float, str]] = []  # (from, to, hub): it was not active
        self.registry_troubles: list[tuple[float, float]] = []  # (from, to): opens by other hubs' agents may fail
        self.cut_off: list[tuple[float, float, str]] = []  # (from, to, hub): Redis lives, and it cannot renew its lease
        self.redis = Redis(world, lambda: WALL + world.now, shape.lan)
        self.hubs: dict[str, HubProcess] = {}
        self.agents: dict[str, AgentProcess] = {}
        self.clients = Clients(world, self.kernel)
        self.targets = {
            name: TargetServer(world, self.kernel.host(name), TARGET_PORT, self.clients)
            for name in dict.fromkeys(f"target-{connector}" for one in shape.agents for connector in one.connectors)
        }
        for name in shape.hubs:
            self.hubs[name] = HubProcess(world, self.kernel, name, self._hub_config(name, files), self.jwt, self.redis)
        for one in shape.agents:
            name = agent_name(one)
            self.agents[name] = AgentProcess(world, self.kernel, name, self._agent_config(one, files))
            for hub in shape.hubs:
                self.kernel.latency[name, hub] = self.kernel.latency[hub, name] = shape.wan
        self.by_hand = False  # an operator asks right now
        self.deluded: set[str] = set()  # agents that have remembered an epoch beyond reason
        self.clones: dict[str, AgentProcess] = {}  # second processes under an agent's name
        self.processes: dict[str, Process] = {**self.hubs, **self.agents}
        self.upsets: list[tuple[float, float, str]] = []  # (from, to, process): its upgrade may fail
        for process in self.processes.values():
            process.on_end = partial(self._ends, process)
            process.on_down = partial(self._supervise, process)
        for trip in plan.trips:
            self._add(trip)
        self.forger = Forger(world, self.hubs, self.agents)
        self._apply = Faults(self)

    def _add(self, trip: TripPlan) -> None:
        shape = self.plan.shape
        agents = tuple(
            agent_name(one) for one in shape.agents if one.tenant == trip.tenant and trip.connector in one.connectors
        )
        self.clients.add(
            Trip(
                len(self.clients.trips),
                trip.connector,
                trip.kind,
                trip.client,
                trip.target,
                self.clients_host,
                trip.hub,
                shape.port(trip.connector, trip.tenant),
                START + trip.at,
                agents,
                shape.proxied,
            )
        )

    def _ends(self, process: Process, life: Life) -> None:
        """What dies with a life: connections that nobody else has, and flows that have none any more."""
        if life.code == 0 and life not in process.former:
            return  # its drain
        if life.code == 0:
            self._left_at(life)
        ends = [file.sock for file in life.net.files.values() if isinstance(file.sock, Socket) and file.sock.held == 1]
        lost = {end.peer_address for end in ends} | {end.address for end in ends}
        if life.code and life.owner is not None:
            lost |= {self.address_of(cid) for cid in life.owner.flows}
        for trip in self.clients.trips:
            if trip.address in lost or (trip.target_address and trip.target_address in lost):
                trip.excuses.add(f"{life.loop.name} had it, and has ended")

    def _left_at(self, life: Life) -> None:
        """A predecessor ends when nothing is left, or what lingers has had its time."""
        owner = life.owner
        context, left = owner.ground.context, self.world.now - life.handed_over_at
        rest = {
            "flows": len(owner.flows),
            "live": context.live,
            "windows": context.windows,
            "segments": context.pool.in_use,
            "bytes": context.bytes_read - context.bytes_out - context.discarded,
        }
        if left < owner.ground.config.drain.timeout_sec:
            ends = [file.sock for file in life.net.files.values() if isinstance(file.sock, Socket)]
            ours = {trip.address for trip in self.clients.trips} | {trip.target_address for trip in self.clients.trips}
            rest["connections"] = sum(not ours.isdisjoint((end.address, end.peer_address)) for end in ends)
        for what, count in rest.items():
            if count:
                self.world.problem(f"{life.loop.name} has handed over, and {what} {count} are left")

    def address_of(self, cid: bytes) -> tuple[Any, ...]:
        """The client of a flow, by the hub that has it; empty if none has."""
        for hub in self.hubs.values():
            for one in hub.hubs:
                if cid in one.flows:
                    host, port, _, _ = one.flows[cid].info.ends
                    return host, port
        return ()

    def _supervise(self, process: Process) -> None:
        """It is down although nobody wanted that: started again in a moment."""
        now = self.world.now
        self.fatal.append((self.upsets[-1][0] if self.upsets else now, now, process.name))
        self.outage((process.name,), RESTART)
        self.world.after(RESTART, process.start)

    def probe(self) -> None:
        """Clients that come when all is well again: one at each hub for each connector."""
        for hub in self.plan.shape.hubs:
            for connector, tenant in self.plan.shape.listeners:
                self._add(TripPlan(self.world.now - START, "probe", hub, connector, tenant, *PROBE))

    def _ha(self, name: str, files: Files) -> dict[str, Any]:
        shape = self.plan.shape
        others = [other for other in shape.hubs if other != name]
        path = f":{MESH_PORT}" if shape.mesh_scheme == "tcp" else f":{EDGE_PORT}/mesh"
        mesh = {**shape.mesh, "require_mtls": False, "secret_file": files.mesh_secret, "listen": f":{MESH_PORT}"}
        if shape.mesh_by != "peers":
            mesh["advertise"] = f"{shape.mesh_scheme}://{name}{path}"
        if shape.mesh_by != "registry":
            mesh["peers"] = [f"{shape.mesh_scheme}://{other}{path}" for other in others]
        return {
            "enabled": True,
            "mode": shape.mode,
            "replica_id": name,
            "lease_sec": shape.lease,
            "without_redis": shape.without_redis,
            "mesh": mesh,
            "level": shape.level,
            **({"redis_url": "redis://redis:6379"} if shape.redis else {}),
        }

    def _hub_config(self, name: str, files: Files) -> HubConfig:
        shape = self.plan.shape
        config = HubConfig.model_validate(
            {
                **shape.hub,
                "edge": {"bind": f":{EDGE_PORT}", **shape.hub.get("edge", {})},
                **({"ha": self._ha(name, files)} if shape.mode else {}),
                "listeners": [
                    {
                        "name": f"{connector}-{tenant or 'none'}",
                        "bind": f":{shape.port(connector, tenant)}",
                        "connector": connector,
                        "open_on": shape.open_on,
                        **({"tenant": tenant} if tenant else {}),
                        **(
                            {"proxy_protocol": "v2", "proxy_from": [self.clients_host.address]} if shape.proxied else {}
                        ),
                    }
                    for connector, tenant in shape.listeners
                ],
            }
        )
        return config.model_copy(update={"limits": config.limits.model_copy(update={"memory_bytes": shape.memory})})

    def _agent_config(self, one: AgentShape, files: Files) -> AgentConfig:
        shape = self.plan.shape
        config = AgentConfig.model_validate(
            {
                **shape.agent,
                "hubs": [f"ws://{hub}:{EDGE_PORT}/tunnel" for hub in one.hubs],
                "allow_plaintext": True,
                "agent_id": one.agent_id,
                "token_file": files.token(one.agent_id, one.tenant, one.connectors),
                "http_proxy": "off",
                "standby": one.standby,
                "connectors": [
                    {
                        "name": connector,
                        "target": f"{self.kernel.hosts[f'target-{connector}'].address}:{TARGET_PORT}",
                        "proxy_protocol": "v2",
                        "dial_timeout_sec": shape.dial_timeout,
                        **(
                            {"health": {"interval_sec": 1.0, "timeout_sec": 1.0, "fall": 2, "rise": 1}}
                            if shape.health
                            else {}
                        ),
                    }
                    for connector in one.connectors
                ],
            }
        )
        return config.model_copy(
            update={"limits": config.limits.model_copy(update={"memory_bytes": shape.agent_memory})}
        )

    def start(self) -> None:
        for process in self.processes.values():
            self.world.after(0.05 * self.world.rng.random(), process.start)
        for fault in self.plan.faults:
            self.world.at(START + fault.at, self._apply, fault)

    @property
    def busy(self) -> bool:
        """Whether a program, a flow or a fault is under way."""
        return (
            bool(self.clients.open)
            or any(target.open for target in self.targets.values())
            or not all(process.running and not process.flows for process in self.processes.values())
            or any(clone.running for clone in self.clones.values())
            or any(len(process.all) > 1 for process in self.processes.values())
        )

    @property
    def well_at(self) -> float:
        """When everything must be as before, if nothing more goes wrong; NEVER while something is not repaired."""
        if not all(
            process.running and not process.frozen and process.on_exit is None and len(process.all) == 1
            for process in self.processes.values()
        ):
            return NEVER
        if any(clone.running for clone in self.clones.values()):
            return NEVER
        ends = [one.until + self.recovery for one in self.outages]
        ends += [until + self.registry_recovery for _, until in self.registry_troubles]
        ends += [until + 6.0 for _, until, _, _ in self.unreachable]
        ends += [until + self.recovery for _, until, _ in self.modes]
        return max([START + self.plan.quiet_at, *ends])

    @property
    def registry_recovery(self) -> float:
        """Seconds from the end of trouble with Redis within which hubs must route by it again."""
        return 6.0 + self.plan.shape.lease

    @property
    def recovery(self) -> float:
        """Seconds from the end of an outage within which everything must be as before: a retransmission; silence found
        out, at worst at the end, by the next look at the timers; a dial that began during the outage; the pause before
        the next, and that dial; the exchange of M_RESUME."""
        agent = next(iter(self.agents.values())).config
        reconnect = agent.reconnect
        tunnel = 2.0 + agent.tunnel.ping_timeout_sec + 1.0 + 2 * reconnect.connect_timeout_sec + reconnect.max_sec + 3.0
        if not self.plan.shape.mode:
            return tunnel
        mesh = self.plan.shape.mesh  # and beside it the link between the hubs, a dial and a handshake
        return tunnel + 3.0 + 2.0 + mesh["ping_timeout_sec"] + 10.0 + mesh["connect_backoff_max_sec"]

    # what excuses

    def outage(self, hosts: tuple[str, ...], lasts: float = 0.0, *, silent: bool = False) -> None:
        now = self.world.now
        self.outages.append(Outage(frozenset(hosts), now, now + lasts, silent))

    def apart(self, since: float, until: float) -> bool:
        """Whether a hub was not, or not quite, active then."""
        return any(one <= until and other + self.recovery >= since for one, other, _ in self.modes)

    def matters(self, outage: Outage, hub: str, agent: str) -> bool:
        """Whether flows between the two may have to do with it: any hub may be the agent's owner."""
        hosts = outage.hosts
        if not hosts <= {agent, *self.hubs}:
            return False
        return len(hosts) == 1 or agent in hosts or hub in hosts

    def windows(self, hub: str, agent: str) -> list[tuple[float, float]]:
        """The times in which ways between a client's hub and an agent could not be used, with the recovery; merged."""
        return merged((one.since, one.until + self.recovery) for one in self.outages if self.matters(one, hub, agent))

    def registry_windows(self) -> list[tuple[float, float]]:
        """The times in which hubs may not have known what Redis would have told them; merged."""
        return merged((since, until + self.registry_recovery) for since, until in self.registry_troubles)


def merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of time in order, those that overlap as one."""
    found: list[tuple[float, float]] = []
    for since, until in sorted(spans):
        if found and since <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], until)
        else:
            found.append((since, until))
    return found


class Faults:
    """Makes a fault happen, and ends it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.kernel = cluster.kernel

    def __call__(self, fault: Fault) -> None:
        if "owner" in fault.who:
            owner = self._owner_of(fault.who[0])
            who = (owner,) if fault.kind.endswith("_owner") else (fault.who[0], owner)
            fault = replace(fault, kind=fault.kind.removesuffix("_owner"), who=who)
        self.world.note(f"FAULT {fault}")
        getattr(self, f"_{fault.kind}")(fault)

    def _owner_of(self, agent: str) -> str:
        """The hub whose tunnel owns the agent now, or the first in its list."""
        process = self.cluster.agents[agent]
        tunnel = process.agent.tunnels.owner if process.agent is not None else None
        url = tunnel.url if tunnel is not None else process.config.hubs[0]
        return url.partition("://")[2].partition(":")[0]

    def _hosts(self, fault: Fault) -> tuple[Host, Host]:
        return self.kernel.hosts[fault.who[0]], self.kernel.hosts[fault.who[1]]

    def _later(self, fault: Fault, action: Callable[..., None], *arguments: Any) -> None:
        def end() -> None:
            self.world.note(f"END   {fault}")
            action(*arguments)

        self.world.after(fault.lasts, end)

    # ways

    def _cut(self, fault: Fault) -> None:
        """Resets the connections between two hosts."""
        for sock in self.kernel.between(*self._hosts(fault)):
            self.kernel.cut_connection(sock)
        self.cluster.outage(fault.who)

    def _block_ways(self, fault: Fault, *ways: tuple[Host, Host]) -> None:
        for way in ways:
            self.kernel.block(*way)
            self._later(fault, self.kernel.unblock, *way)
        self.cluster.outage(fault.who, fault.lasts)

    def _block(self, fault: Fault) -> None:
        one, other = self._hosts(fault)
        self._block_ways(fault, (one, other), (other, one))

    def _block_out(self, fault: Fault) -> None:
        one, other = self._hosts(fault)
        self._block_ways(fault, (one, other))

    def _block_in(self, fault: Fault) -> None:
        one, other = self._hosts(fault)
        self._block_ways(fault, (other, one))

    def _slow(self, fault: Fault) -> None:
        one, other = fault.who
        for names in ((one, other), (other, one)):
            self.kernel.extra[names] = self.kernel.extra.get(names, 0.0) + fault.how
            self._later(fault, self._hurry, names, fault.how)
        self.cluster.outage(fault.who, fault.lasts)

    def _hurry(self, names: tuple[str, str], seconds: float) -> None:
        self.kernel.extra[names] -= seconds

    # processes

    def _freeze(self, fault: Fault) -> None:
        process = self.cluster.processes[fault.who[0]]
        if process.running and not process.frozen:
            process.freeze()
            self._later(fault, process.thaw)
            self._upsets(process, fault.lasts)
            self.cluster.outage(fault.who, fault.lasts, silent=True)

    def _kill(self, fault: Fault) -> None:
        self._lose(fault, Process.kill)

    def _power(self, fault: Fault) -> None:
        self._lose(fault, Process.lose_power)

    def _lose(self, fault: Fault, how: Callable[[Process], None]) -> None:
        process = self.cluster.processes[fault.who[0]]
        if process.running:
            how(process)
            self._upsets(process)
            self._down(process, self.world.now)
            self._later(fault, process.start)
            self.cluster.outage(fault.who, fault.lasts)

    def _down(self, process: Process, since: float) -> None:
        self.cluster.fatal.append((since, self.world.now, process.name))

    def _drain(self, fault: Fault) -> None:
        process = self.cluster.processes[fault.who[0]]
        if not process.running or process.on_exit is not None:
            return
        begun = self.cluster.leaving[process.name] = self.world.now
        self._upsets(process)
        process.on_exit = lambda: self._exited(fault, process, begun)
        process.end()

    def _exited(self, fault: Fault, process: Process, begun: float) -> None:
        """What was drained has exited, or was killed meanwhile; in its own time it comes back."""
        process.on_exit = None
        del self.cluster.leaving[process.name]
        self._down(process, begun)
        self.cluster.drains.append((begun, self.world.now, process.name))
        self.cluster.outages.append(Outage(frozenset(fault.who), begun, self.world.now + fault.lasts))
        self._later(fault, process.start)

    # upgrades

    def _upsets(self, process: Process, lasts: float = 0.0) -> None:
        self.cluster.upsets.append((self.world.now, self.world.now + lasts, process.name))

    def _upgrade(self, fault: Fault) -> None:
        """It hands over. That excuses nothing. `how`: seconds that each message from one to the other takes longer."""
        process = self.cluster.processes[fault.who[0]]
        if process.running:
            process.net.delay = fault.how
            process.upgrade()

    def _upgrade_both(self, fault: Fault) -> None:
        """The agent hands over while the hub that owns it does: when `how` messages are between that one's processes.
        If the fault lasts, the agent's predecessor stands still for so long once its successor has the flows. That
        excuses nothing either."""
        agent, owner = (self.cluster.processes[name] for name in fault.who)
        self._upgrade_cut(replace(fault, who=(owner.name,)), lambda process, heir: self._follow(fault, agent))

    def _follow(self, fault: Fault, agent: Process) -> None:
        loads, agent.loads = agent.loads, AT_ONCE

        def begun(heir: Life) -> None:
            agent.on_heir, agent.loads = (lambda life: None), loads
            if fault.lasts:
                self._still_behind(fault, agent.life, heir)

        agent.on_heir = begun
        agent.upgrade()

    def _still_behind(self, fault: Fault, former: Life, heir: Life) -> None:
        """The former process stands still as soon as its heir is the agent."""
        if not (heir.running and former.running):
            return
        if heir.owner is None or not heir.owner._taking._begun:
            self.world.after(LOOK, self._still_behind, fault, former, heir)
        elif not former.loop.frozen:
            self.world.note(f"FAULT {former.loop.name} freezes")
            former.loop.freeze()
            self._later(fault, self._thaw, former)

    def _thaw(self, life: Life) -> None:
        if life.running:
            life.thaw()

    def _upgrade_heir(self, fault: Fault) -> None:
        """It hands over, and the successor dies when `how` messages have been sent."""
        self._upgrade_cut(fault, self._kill_heir)

    def _upgrade_self(self, fault: Fault) -> None:
        """It hands over, and dies when `how` messages have been sent."""
        self._upgrade_cut(fault, self._kill_self)

    def _upgrade_freeze(self, fault: Fault) -> None:
        """It hands over, and one of the two stands still when `how` messages have been sent."""
        self._upgrade_cut(fault, lambda process, heir: self._freeze(replace(fault, who=(process.name,))))

    def _upgrade_end(self, fault: Fault) -> None:
        """It hands over, and is to end when `how` messages have been sent."""
        self._upgrade_cut(fault, lambda process, heir: self._drain(replace(fault, who=(process.name,))))

    def _upgrade_cut(self, fault: Fault, cut: Callable[[Process, Life], None]) -> None:
        process = self.cluster.processes[fault.who[0]]

        def begun(heir: Life) -> None:
            process.on_heir = lambda life: None
            soon = self.world.rng.choice((1e-5, 1e-3, 1e-2))

            def strike() -> None:
                self.world.after(soon * self.world.rng.random(), cut, process, heir)

            if fault.how:
                heir.net.files[heir.inherits or 0].sock.pair.marks.append((int(fault.how), strike))
            else:
                self.world.after(0.1 * self.world.rng.random(), cut, process, heir)

        process.on_heir = begun
        process.upgrade()

    def _kill_heir(self, process: Process, heir: Life) -> None:
        if not heir.running:
            return
        self.world.note(f"FAULT {heir.loop.name} dies")
        self._upsets(process)
        agent = isinstance(process, AgentProcess)
        if process.life is heir:  # there is nobody else any more
            self._down(process, self.world.now)
        elif agent and heir.owner is not None and heir.owner._taking._begun:  # and its flows with it
            self._down(process, self.world.now)
        self.cluster.outage((process.name,))
        heir.end(crashed=True, code=-9)

    def _kill_self(self, process: Process, heir: Life) -> None:
        parent = heir.parent
        if parent is None or not parent.running:
            return
        self.world.note(f"FAULT {parent.loop.name} dies")
        self._upsets(process)
        if isinstance(process, AgentProcess) and not (heir.running and heir.owner and heir.owner._taking._begun):
            self._down(process, self.world.now)
        if parent in (process.life, *process.former):
            self.cluster.outage((process.name,))
        parent.end(crashed=True, code=-9)

    _cut_mesh, _block_mesh, _block_mesh_out, _block_mesh_in, _slow_mesh = _cut, _block, _block_out, _block_in, _slow

    # an operator

    def _move(self, fault: Fault) -> None:
        """Asks an agent to move. It excuses nothing."""
        name, to = fault.who
        shape = next(one for one in self.cluster.plan.shape.agents if agent_name(one) == name)
        process = self.cluster.hubs[self._owner_of(name)]
        if process.running and not process.loop.frozen and process.hub is not None:
            process.loop.call_soon(self._ask_to_move, process.hub, f"{shape.tenant or ''}/{shape.agent_id}", to)

    def _ask_to_move(self, hub: Hub, agent: str, to: str) -> None:
        self.cluster.by_hand = True
        try:
            hub.move_agent(agent, to)
        except MoveRefused as exc:
            self.world.note(f"not moved: {exc}")
        finally:
            self.cluster.by_hand = False

    # the registry

    def _registry(self, lasts: float) -> None:
        self.cluster.registry_troubles.append((self.world.now, self.world.now + lasts))

    def _redis_kill(self, fault: Fault) -> None:
        """Killed, and comes back empty."""
        self._redis_away(fault, keep=False)

    def _redis_restart(self, fault: Fault) -> None:
        """Killed, and comes back with its data."""
        self._redis_away(fault, keep=True)

    def _redis_away(self, fault: Fault, keep: bool) -> None:
        redis = self.cluster.redis
        if not redis.server.down:
            redis.die(keep)
            self._later(fault, redis.server.restart)
            self._registry(fault.lasts)

    def _redis_flush(self, fault: Fault) -> None:
        self.cluster.redis.server.data.clear()
        self._registry(0.0)

    def _redis_freeze(self, fault: Fault) -> None:
        server = self.cluster.redis.server
        if not server.down and not server.frozen:
            server.freeze()
            self._later(fault, server.thaw)
            self._registry(fault.lasts)

    def _redis_slow(self, fault: Fault) -> None:
        redis = self.cluster.redis
        redis.extra += fault.how

        def hurry() -> None:
            redis.extra -= fault.how

        self._later(fault, hurry)
        self._registry(fault.lasts)

    def _redis_block(self, fault: Fault) -> None:
        """One hub and Redis do not reach each other."""
        self.cluster.redis.block(fault.who[0])
        self._later(fault, self.cluster.redis.unblock, fault.who[0])
        self._registry(fault.lasts)
        self.cluster.cut_off.append((self.world.now, self.world.now + fault.lasts, fault.who[0]))

    def _redis_deaf(self, fault: Fault) -> None:
        """One hub gets no notices."""
        deaf, hub = self.cluster.redis.deaf, fault.who[0]
        deaf[hub] = deaf.get(hub, 0) + 1

        def hear() -> None:
            deaf[hub] -= 1

        self._later(fault, hear)
        self._registry(fault.lasts)

    def _redis_clock(self, fault: Fault) -> None:
        """The server's clock steps, for good."""
        self.cluster.redis.clock_offset += fault.how
        self._registry(0.0)

    def _poison(self, fault: Fault) -> None:
        """An agent's epoch is beyond reason, in Redis or in its own memory."""
        name, where = fault.who
        shape = next(one for one in self.cluster.plan.shape.agents if agent_name(one) == name)
        key, data = f"{shape.tenant or ''}/{shape.agent_id}".encode(), self.cluster.redis.server.data
        agent = self.cluster.agents[name].agent
        epoch = 2 ** self.world.rng.choice((52, 53))
        if where == "epochs":
            data.epochs[key] = epoch
        elif where == "agents" and key in data.agents:
            data._put(key, b"%d\n" % epoch + data.agents[key].partition(b"\n")[2])  # and every hub is told
            self.cluster.outage((name,))  # the record counts as gone; what `epochs` has beside it may fence the owner
        elif where == "memory" and agent is not None and self.cluster.agents[name].running:
            agent.tunnels.last_epoch = agent.tunnels._said = epoch
            self.cluster.deluded.add(name)
            self.cluster.outage((name,))

    # processes, and their clocks

    def _clock(self, fault: Fault) -> None:
        """The wall clock of a hub steps, for good."""
        self.cluster.hubs[fault.who[0]].clock_offset += fault.how

    def _clone(self, fault: Fault) -> None:
        """Somebody starts the agent a second time, elsewhere."""
        cluster, name = self.cluster, f"{CLONE}{fault.who[0]}"
        clone = cluster.clones.get(name)
        if clone is None:
            original = cluster.agents[fault.who[0]]
            clone = cluster.clones[name] = AgentProcess(self.world, self.kernel, name, original.config)
            for hub in cluster.hubs:
                self.kernel.latency[name, hub] = self.kernel.latency[hub, name] = cluster.plan.shape.wan
        if clone.running:
            return
        clone.start()
        begun = self.world.now

        def end() -> None:
            clone.kill()
            cluster.fatal.append((begun, self.world.now, fault.who[0]))

        self._later(fault, end)
        cluster.outage(fault.who, fault.lasts)

    def _mode(self, fault: Fault) -> None:
        """A hub leaves the cluster's traffic, or the cluster, by a reload, and comes back."""
        cluster, (name, mode) = self.cluster, fault.who
        hub = cluster.hubs[name]
        hub.reload(mode)
        self._later(fault, hub.reload, cluster.plan.shape.mode)
        cluster.modes.append((self.world.now, self.world.now + fault.lasts, name))

    # forgeries

    def _forge(self, fault: Fault) -> None:
        self.cluster.forger(fault.kind)

    _stale = _thief = _trespass = _belated = _forge

    def _liar(self, fault: Fault) -> None:
        """Costs the liar the flow."""
        client = self.cluster.forger(fault.kind)
        host, _, port = client.rpartition(":")
        if client:
            self.cluster.clients.by_address[host, int(port)].excuses.add("its agent has lied")

    # clients and targets

    def _target_down(self, fault: Fault) -> None:
        """Connects are refused; what is connected stays so."""
        target = self.cluster.targets[fault.who[0]]
        target.down()
        self._later(fault, target.up)
        self._unreachable(fault.who[0], "", fault.lasts)

    def _unreachable(self, target: str, agent: str, lasts: float) -> None:
        self.cluster.unreachable.append((self.world.now, self.world.now + lasts, target, agent))

    def _block_target(self, fault: Fault) -> None:
        one, other = self._hosts(fault)
        self._quietly(fault, one, other)
        self._unreachable(fault.who[1], fault.who[0], min(fault.lasts, 6.0))

    def _reject(self, fault: Fault) -> None:
        """A firewall refuses an agent's connects to a target."""
        one, other = fault.who
        rejected = self.kernel.rejected
        rejected[one, other] = rejected.get((one, other), 0) + 1

        def admit() -> None:
            rejected[one, other] -= 1

        self._later(fault, admit)
        self._unreachable(other, one, fault.lasts)

    def _quietly(self, fault: Fault, one: Host, other: Host) -> None:
        """Blocks both ways, shorter than any connection's timeout."""
        lasts = min(fault.lasts, 6.0)
        for way in ((one, other), (other, one)):
            self.kernel.block(*way)
            self.world.after(lasts, self.kernel.unblock, *way)

    def _block_clients(self, fault: Fault) -> None:
        self._quietly(fault, *self._hosts(fault))

    def _cut_target(self, fault: Fault) -> None:
        self._cut_one(
            self.kernel.between(*self._hosts(fault)), lambda trip, sock: trip.target_address == sock.getsockname()
        )

    def _cut_client(self, fault: Fault) -> None:
        self._cut_one(self.kernel.between(*self._hosts(fault)), lambda trip, sock: trip.address == sock.getsockname())

    def _cut_one(self, ends: list[Socket], mine: Callable[[Trip, Socket], bool]) -> None:
        """A middlebox resets one connection of a client or a target."""
        if not ends:
            return
        end = self.world.rng.choice(ends)
        for trip in self.cluster.clients.trips:
            if mine(trip, end):
                trip.excuses.add("its connection was cut")
        self.kernel.cut_connection(end)
