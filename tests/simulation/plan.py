"""What a seed stands for: an installation, what its clients do, and what goes wrong, drawn before anything runs.

Each seed takes a subset of the workloads and of the faults, so that some seeds are quiet but for one of them, and some
have all at once (swarm testing: Groce and others, ISSTA 2012).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from .programs import Script
from .workloads import KIB, WORKLOADS, ask

SLOW = 500_000  # bytes a second, below which a tunnel is always full
SLOWEST = 40_000  # bytes a second that a tunnel carries at least
BURSTS = (5, 20, 60)  # clients that come while an owner is silent


@dataclass(frozen=True, slots=True)
class AgentShape:
    agent_id: str
    tenant: str | None
    connectors: tuple[str, ...]
    hubs: tuple[str, ...]  # in the order of its file
    standby: bool = True


@dataclass(frozen=True, slots=True)
class Shape:
    """The installation."""

    hubs: tuple[str, ...]
    agents: tuple[AgentShape, ...]
    listeners: tuple[tuple[str, str | None], ...]  # connector and tenant; ports follow from the order
    lan: float  # seconds one way between hubs, clients and hubs, agents and targets
    wan: float  # between agents and hubs
    segment: int
    kernel_buffer: int
    hub: dict[str, Any]  # sections of the hubs' configuration that differ from the defaults
    agent: dict[str, Any]
    memory: int  # bytes, of each hub
    agent_memory: int  # bytes, of each agent: one with more of it gives more credit than a hub has room for
    health: bool
    dial_timeout: float
    mode: str  # of the cluster; "" for hubs that are each alone
    redis: bool
    mesh: dict[str, Any]  # of the hubs' ha.mesh
    mesh_by: str  # how peers are found: "peers", "registry", "both"
    mesh_scheme: str  # tcp or ws
    lease: float
    without_redis: str = "last_view"
    level: dict[str, Any] = field(default_factory=lambda: {"enabled": False})  # of the hubs' ha.level
    proxied: bool = False  # clients come through a balancer, which says who they are, and takes its time
    open_on: str = "accept"  # of the listeners
    moves_again: bool = (
        True  # agents come to a hub's successor while they are at the predecessor, as all do but old ones
    )

    @property
    def least_memory(self) -> int:
        return min(self.memory, self.agent_memory)

    def port(self, connector: str, tenant: str | None) -> int:
        return 1000 + self.listeners.index((connector, tenant))


@dataclass(frozen=True, slots=True)
class TripPlan:
    at: float
    kind: str
    hub: str
    connector: str
    tenant: str | None
    client: Script
    target: Script


@dataclass(frozen=True, slots=True)
class Fault:
    """Something goes wrong at `at` for `lasts` seconds, to `who`; `how` depends on the kind (see `faults`)."""

    at: float
    kind: str
    who: tuple[str, ...]
    lasts: float = 0.0
    how: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.at:7.3f} {self.kind} {' '.join(self.who)}"
            + (f" for {self.lasts:.3f} s" if self.lasts else "")
            + (f" ({self.how:.4g})" if self.how else "")
        )


@dataclass(slots=True)
class Plan:
    seed: int
    shape: Shape
    trips: list[TripPlan] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    quiet_at: float = 0.0  # from here on nothing goes wrong any more

    def describe(self) -> str:
        shape = self.shape
        lines = [
            f"seed {self.seed}: hubs {' '.join(shape.hubs)}; lan {shape.lan * 1000:.2f} ms, wan "
            f"{shape.wan * 1000:.2f} ms, "
            f"kernel buffers {shape.kernel_buffer}, segments {shape.segment}, memory {shape.memory} "
            f"and {shape.agent_memory}",
            f"  mode {shape.mode or '-'}, {'redis' if shape.redis else 'memory'}, lease "
            f"{shape.lease}, without it {shape.without_redis}, mesh by {shape.mesh_by} over "
            f"{shape.mesh_scheme} {shape.mesh}, level {shape.level}",
            f"  hub {shape.hub}, clients {'proxied, ' if shape.proxied else ''}opened on {shape.open_on}"
            f"{'' if shape.moves_again else '; agents do not know that they may move again'}",
            f"  agent {shape.agent}",
        ]
        lines += [
            f"  agent {one.agent_id} ({one.tenant}) {' '.join(one.connectors)} at {' '.join(one.hubs)}"
            f"{'' if one.standby else ', no standby'}"
            for one in shape.agents
        ]
        lines += [
            f"  {trip.at:7.3f} trip {number}: {trip.kind} to {trip.connector} ({trip.tenant}) by {trip.hub}, "
            f"{trip.client.total} up, {trip.target.total} down"
            for number, trip in enumerate(self.trips)
        ]
        lines += [f"  {fault}" for fault in self.faults]
        lines += [f"  {self.quiet_at:7.3f} quiet"]
        return "\n".join(lines)


def draw(seed: int) -> Plan:
    """The plan of a seed; a function of the seed alone."""
    rng = random.Random(f"plan {seed}")
    shape = _draw_shape(rng)
    plan = Plan(seed, shape)
    busy = rng.choice((4.0, 8.0, 16.0, 24.0))  # seconds in which clients come
    plan.quiet_at = 1.0 + busy * rng.uniform(0.8, 1.5)
    _draw_trips(rng, plan, busy)
    silence = _draw_silence(rng, plan)
    if not silence or rng.random() < 0.5:
        _draw_faults(rng, plan)
    plan.trips.sort(key=lambda trip: trip.at)
    _draw_outages(random.Random(f"outages of {seed}"), plan)
    _draw_moves(random.Random(f"moves {seed}"), plan)
    _draw_poison(random.Random(f"poison {seed}"), plan)
    _draw_upgrades(random.Random(f"upgrades {seed}"), plan)
    _draw_both(random.Random(f"both {seed}"), plan)
    plan.faults.sort(key=lambda fault: fault.at)
    return plan


def _draw_shape(rng: random.Random) -> Shape:
    hubs: tuple[str, ...] = ("hub-a", "hub-b", "hub-c")
    mode = rng.choice(("active",) * 7 + ("shadow", "off"))
    if rng.random() < 0.2:
        hubs, mode = hubs[:1], ""
    elif rng.random() < 0.2:
        hubs = hubs[:2]

    def order() -> tuple[str, ...]:
        return tuple(rng.sample(hubs, len(hubs))) if mode else hubs[:1]

    standby = rng.random() < 0.85
    agents = [AgentShape("site-1", None, ("ldap",), order(), standby)]
    if rng.random() < 0.4:
        agents.append(AgentShape("site-2", None, ("ldap", "db") if rng.random() < 0.5 else ("ldap",), order(), standby))
    if rng.random() < 0.3:
        agents.append(AgentShape("site-1", "acme", ("ldap",), order(), standby))
    listeners: dict[tuple[str, str | None], None] = {}
    for agent in agents:
        for connector in agent.connectors:
            listeners[connector, agent.tenant] = None
    ping = rng.choice(((2.0, 5.0), (1.0, 3.0), (1.0, 3.0), (0.5, 2.0)))
    tunnel = {
        "ping_interval_sec": ping[0],
        "ping_timeout_sec": ping[1],
        "per_link_max_inflight_bytes": rng.choice((64 * KIB, 256 * KIB, 8192 * KIB, 8192 * KIB)),
        "send_queue_depth": rng.choice((16, 1000, 1000)),
    }
    initial = rng.choice((64 * KIB, 256 * KIB, 256 * KIB))
    flow = {
        "flow_grace_sec": rng.choice((90.0, 90.0, 90.0, 30.0, 3.0)),
        "window_initial": initial,
        "window_max": rng.choice((initial, 16384 * KIB)),
        "half_close_sec": rng.choice((300.0, 300.0, 300.0, 20.0)),
        "stall_sec": rng.choice((30.0, 30.0, 10.0)),
    }
    limits = {"pending_opens_per_agent": rng.choice((256, 256, 2))}
    agent = {
        "reconnect": {"max_sec": rng.choice((0.5, 2.0)), "connect_timeout_sec": 3.0},
        "flow": flow,
        "tunnel": tunnel,
        "drain": {"timeout_sec": rng.choice((0.0, 3.0, 6.0))},
    }
    hub = {
        "flow": flow,
        "tunnel": tunnel,
        "limits": limits,
        "drain": rng.choice(({"delay_sec": 0.0, "timeout_sec": 0.0}, {"delay_sec": 2.0, "timeout_sec": 3.0})),
        "edge": {"handshakes_per_source_per_sec": 0},
    }
    mesh_ping = rng.choice(((1.0, 3.0), (1.0, 3.0), (0.3, 1.0)))
    mesh = {
        "ping_interval_sec": mesh_ping[0],
        "ping_timeout_sec": mesh_ping[1],
        "connect_backoff_max_sec": rng.choice((0.5, 2.0)),
        "per_link_max_inflight_bytes": rng.choice((64 * KIB, 256 * KIB, 8192 * KIB, 8192 * KIB)),
        "send_queue_depth": rng.choice((16, 1000, 1000)),
    }
    wan = rng.choice((0.0003, 0.002, 0.012, 0.04))
    buffers = [size for size in (4 * KIB, 64 * KIB, 64 * KIB, 512 * KIB) if size / (2 * wan) >= SLOWEST]
    kernel_buffer = rng.choice(buffers)
    if kernel_buffer / (2 * wan) < SLOW:  # what overflows there all the time comes through, but when?
        tunnel["send_queue_depth"] = mesh["send_queue_depth"] = 1000
        flow["stall_sec"] = 30.0
        for one in (tunnel, mesh):  # what waits for a full tunnel goes within that, and the reset behind it
            one["per_link_max_inflight_bytes"] = min(one["per_link_max_inflight_bytes"], 256 * KIB)
    memory = rng.choice((256 * KIB, 1024 * KIB, 1 << 30, 1 << 30, 1 << 30))
    return Shape(
        mode=mode,
        redis=True,
        mesh=mesh,
        mesh_by=rng.choice(("peers", "registry", "both")),
        mesh_scheme=rng.choice(("tcp", "tcp", "tcp", "ws")),
        lease=rng.choice((1.0, 3.0, 5.0)),
        hubs=hubs,
        agents=tuple(agents),
        listeners=tuple(listeners),
        lan=rng.choice((0.0001, 0.0005, 0.002)),
        wan=wan,
        segment=rng.choice((1460, 4096, 16384, 65536)),
        kernel_buffer=kernel_buffer,
        hub=hub,
        agent=agent,
        memory=memory,
        agent_memory=rng.choice((memory, 1 << 30)),
        health=rng.random() < 0.4,
        dial_timeout=rng.choice((5.0, 1.0)),
    )


def _draw_trips(rng: random.Random, plan: Plan, busy: float) -> None:
    shape = plan.shape
    kinds = [kind for kind in WORKLOADS if rng.random() < 0.5] or [rng.choice(list(WORKLOADS))]
    weights = [WORKLOADS[kind][1] for kind in kinds]
    count = rng.choice((1, 3, 8, 16, 30))
    times = sorted(rng.uniform(0.3, busy) for _ in range(count))
    if rng.random() < 0.25:  # a storm of connects
        at = rng.uniform(0.3, busy)
        times = sorted([*times, *(at + 0.01 * rng.random() for _ in range(rng.choice((10, 40))))])
    arrivals = [(at, rng.choices(kinds, weights)[0]) for at in times]
    if rng.random() < 0.1:  # a crowd of readers that pause, in processes that have not the memory for all
        at, kind = rng.uniform(0.3, busy), rng.choice(("slow_client", "slow_target"))
        arrivals += [(at + rng.random(), kind) for _ in range(rng.choice((4, 8)))]
    bulk = 0
    for at, kind in sorted(arrivals):
        client, target = WORKLOADS[kind][0](rng)
        if bulk + client.total + target.total > 8 << 20:
            kind, (client, target) = "ask", ask(rng)
        bulk += client.total + target.total
        connector, tenant = rng.choice(shape.listeners)
        plan.trips.append(TripPlan(at, kind, rng.choice(shape.hubs), connector, tenant, client, target))


# faults: each gives what happens to whom


def _lasting(rng: random.Random) -> float:
    """Seconds: mostly short, some of the length of timeouts, few longer than most."""
    return rng.choice((rng.uniform(0.001, 0.3), rng.uniform(0.1, 2.0), rng.uniform(1.0, 8.0)))


def _draw_faults(rng: random.Random, plan: Plan) -> None:
    shape = plan.shape
    if rng.random() < 0.1:
        return
    agents = [agent_name(one) for one in shape.agents]
    hubs = list(shape.hubs)
    owned = [(name, "owner") for name in agents]  # the hub that owns the agent then
    tunnels = [(agent_name(one), hub) for one in shape.agents for hub in one.hubs] + 2 * owned
    links = (
        [(one, other) for one in hubs for other in hubs if one < other] if shape.mode in ("active", "shadow") else []
    )
    clustered = [(one,) for one in hubs] if shape.mode else []
    redis = [("redis",)] if clustered else []
    reaches = [(agent_name(one), f"target-{connector}") for one in shape.agents for connector in one.connectors]
    kinds: dict[str, tuple[list[Any], int]] = {
        "cut": (tunnels, 4),
        "block": (tunnels, 3),
        "block_out": (tunnels, 2),
        "block_in": (tunnels, 2),
        "slow": (tunnels, 2),
        "cut_mesh": (links, 3),
        "block_mesh": (links, 2),
        "block_mesh_out": (links, 2),
        "block_mesh_in": (links, 2),
        "slow_mesh": (links, 1),
        "redis_kill": (redis, 2),
        "redis_restart": (redis, 1),
        "redis_flush": (redis, 1),
        "redis_freeze": (redis, 1),
        "redis_slow": (redis, 1),
        "redis_block": (clustered, 2),
        "redis_deaf": (clustered, 1),
        "redis_clock": (redis, 1),
        "freeze": ([(one,) for one in hubs + agents], 2),
        "freeze_owner": (owned, 2),
        "kill": ([(one,) for one in hubs + agents], 1),
        "kill_owner": (owned, 2),
        "power": ([(one,) for one in hubs + agents], 1),
        "power_owner": (owned, 1),
        "clone": ([(one,) for one in agents], 1),
        "drain": ([(one,) for one in hubs + agents], 1),
        "drain_owner": (owned, 1),
        "target_down": ([(target,) for _, target in reaches], 1),
        "block_target": (reaches, 1),
        "reject": (reaches, 2),
        "cut_target": (reaches, 1),
        "block_clients": ([("clients", hub) for hub in hubs], 1),
        "cut_client": ([("clients", hub) for hub in hubs], 1),
        "clock": ([(one,) for one in hubs], 1),
        "mode": ([(one, mode) for one in hubs for mode in ("shadow", "off")] if shape.mode == "active" else [], 2),
        "stale": ([("forger",)], 6),
        "thief": ([("forger",)] if len(agents) > 1 else [], 2),
        "liar": ([("forger",)], 1),
        "trespass": ([("forger",)] if links else [], 1),
        "belated": ([("forger",)] if links else [], 1),
    }
    kinds = {kind: whom for kind, whom in kinds.items() if whom[0]}
    chosen = [kind for kind in kinds if rng.random() < 0.35] or [rng.choice(list(kinds))]
    weights = [kinds[kind][1] for kind in chosen]
    for _ in range(rng.choice((1, 1, 2, 3, 6, 10, 16))):
        kind = rng.choices(chosen, weights)[0]
        who = rng.choice(kinds[kind][0])
        at = rng.uniform(0.2, plan.quiet_at - 0.1)
        if plan.trips and rng.random() < 0.6:  # when somebody is there
            at = min(rng.choice(plan.trips).at + rng.expovariate(1.0), plan.quiet_at - 0.1)
        lasts = min(_lasting(rng), plan.quiet_at - at)
        how = 0.0
        if kind in ("slow", "slow_mesh", "redis_slow"):
            how = rng.uniform(0.01, 0.5)
        elif kind in ("clock", "redis_clock"):
            how = rng.choice((-1, 1)) * rng.uniform(1.0, 3600.0)
        plan.faults.append(Fault(at, kind, who, lasts, how))


def _draw_silence(rng: random.Random, plan: Plan) -> bool:
    """Now and then an owner falls silent, does not hear its agent, or loses it for long, and a burst of clients comes
    meanwhile."""
    shape = plan.shape
    if shape.mode != "active" or rng.random() > 0.12:
        return False
    agent = rng.choice(shape.agents)
    at = rng.uniform(min(3.0, plan.quiet_at / 2), plan.quiet_at)
    lasts = rng.choice((rng.uniform(0.5, 6.0), rng.uniform(6.0, 30.0)))
    fault, *owner = rng.choice(
        (("freeze_owner", "owner"), ("freeze_owner", "owner"), ("block_out", "owner"), ("kill",))
    )
    plan.faults.append(Fault(at, fault, (agent_name(agent), *owner), lasts))
    plan.quiet_at = max(plan.quiet_at, at + lasts)
    unnoticed = min(lasts, shape.agent["tunnel"]["ping_timeout_sec"])
    kind = rng.choice(("ask", "ask", "slam"))
    for _ in range(rng.choice(BURSTS)):
        client, target = WORKLOADS[kind][0](rng)
        connector, tenant = rng.choice([one for one in shape.listeners if one[1] == agent.tenant])
        plan.trips.append(
            TripPlan(at + unnoticed * rng.random(), kind, rng.choice(shape.hubs), connector, tenant, client, target)
        )
    return True


def _draw_outages(rng: random.Random, plan: Plan) -> None:
    """What hubs make of an absent Redis, and in some seeds that it goes, once or again and again, while clients come to
    any hub; often nothing else goes wrong then."""
    shape = plan.shape = replace(plan.shape, without_redis=rng.choice(("last_view", "last_view", "local_only")))
    if shape.mode != "active" or rng.random() < 0.7:
        return
    kind = rng.choice(("redis_kill", "redis_restart", "redis_freeze"))
    if rng.random() < 0.6:
        plan.faults.clear()
    begin = rng.uniform(1.0, plan.quiet_at / 2)
    lasts, pause = rng.choice(((plan.quiet_at, 0.0), (2.0, 2.0), (2.0, 2.0), (0.5, 0.5)))
    at = begin
    while at < plan.quiet_at - 0.1 and rng.random() < 0.9:
        plan.faults.append(Fault(at, kind, ("redis",), min(lasts * rng.uniform(0.3, 1.0), plan.quiet_at - at)))
        at += lasts + pause
    for _ in range(rng.choice((4, 12, 24))):
        client, target = WORKLOADS[rng.choice(("ask", "banner", "empty", "half_client"))][0](rng)
        connector, tenant = rng.choice(shape.listeners)
        come = rng.uniform(begin, plan.quiet_at)
        plan.trips.append(TripPlan(come, "outage", rng.choice(shape.hubs), connector, tenant, client, target))


def _draw_moves(rng: random.Random, plan: Plan) -> None:
    """How soon the hubs level, and what an operator moves. By numbers of its own, so that plans are otherwise the same
    as without."""
    shape = plan.shape
    if shape.mode != "active" or rng.random() < 0.4:
        return
    if shape.kernel_buffer / (2 * shape.wan) < SLOW:
        return  # a full tunnel's bytes all go again, and may take longer than a grace: nobody is moved without need
    if rng.random() < 0.6:
        plan.shape = replace(shape, level={"rest_sec": rng.choice((0.5, 3.0, 10.0)), "moves_per_sec": 10})
    for _ in range(rng.choice((0, 1, 2, 4, 8))):
        agent = rng.choice(shape.agents)
        at = rng.uniform(0.5, plan.quiet_at - 0.1)
        if plan.trips and rng.random() < 0.7:
            at = min(rng.choice(plan.trips).at + rng.expovariate(1.0), plan.quiet_at - 0.1)
        plan.faults.append(Fault(at, "move", (agent_name(agent), rng.choice(shape.hubs))))


def _draw_poison(rng: random.Random, plan: Plan) -> None:
    """Epochs beyond reason: in Redis, or in an agent's memory, as a poisoned registry would have granted them. By
    numbers of its own, too."""
    shape = plan.shape
    if not shape.mode or not shape.redis or rng.random() < 0.75:
        return  # a hub alone that restarts while its agent forgets begins at 1 again
    places = ["memory", "epochs", "agents"]
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.uniform(0.5, plan.quiet_at - 0.1)
        plan.faults.append(Fault(at, "poison", (agent_name(rng.choice(shape.agents)), rng.choice(places))))
    plan.faults.sort(key=lambda fault: fault.at)


def _draw_upgrades(rng: random.Random, plan: Plan) -> None:
    """Hubs and agents that hand over, and what dies meanwhile; often several one after the other. By numbers of its
    own, too."""
    shape = plan.shape
    if rng.random() < 0.4 or shape.kernel_buffer / (2 * shape.wan) < SLOW:
        return  # as with moves
    more = {"upgrade": {"timeout_sec": 5.0}}
    # time for agents to come, and for sockets that linger; hubs that are no cluster have no other way to keep them
    if rng.random() < 0.7 or shape.mode in ("off", "shadow"):
        more["drain"] = {"timeout_sec": rng.choice((3.0, 6.0))}
    shape = replace(shape, hub={**shape.hub, **more}, agent={**shape.agent, **more})
    if rng.random() < 0.4:
        plan.faults.clear()
    spoken = all(trip.client.steps and not trip.client.steps[0].after for trip in plan.trips)
    plan.shape = replace(
        shape, proxied=rng.random() < 0.4, open_on="first_byte" if spoken and rng.random() < 0.6 else "accept"
    )
    agents = [agent_name(one) for one in shape.agents]
    who = [*((name,) for name in [*shape.hubs, *3 * agents]), *(2 * [(name, "owner") for name in agents])]
    deadly = rng.random() < 0.5
    for _ in range(rng.choice((1, 2, 3, 6))):
        at = rng.uniform(0.5, plan.quiet_at - 0.1)
        if plan.trips and rng.random() < 0.8:
            at = min(rng.choice(plan.trips).at + rng.expovariate(2.0), plan.quiet_at - 0.1)
        whom = rng.choice(who)
        kind, how = "upgrade", rng.choice((0.0, 0.0, 0.0, 0.005, 0.1))
        if deadly and rng.random() < 0.5:
            kind, how = rng.choice(("upgrade_heir", "upgrade_self")), float(rng.choice((0, *range(1, 13), 20)))
        plan.faults.append(Fault(at, f"{kind}_owner" if len(whom) > 1 else kind, whom, how=how))
    _draw_routine(random.Random(f"routine {plan.seed}"), plan, who, deadly)


def _draw_routine(rng: random.Random, plan: Plan, who: list[tuple[str, ...]], deadly: bool) -> None:
    """Upgrades as operators have them, one hub or agent after the other, or one of them again and again; with agents of
    a release that knows of no upgrades; by processes that stand still or are to end meanwhile."""
    if rng.random() < 0.15 and plan.shape.mode in ("", "active"):  # otherwise they may be lost to another hub for good
        plan.shape = replace(plan.shape, moves_again=False)
    routine = rng.choice(("", "", "", "each", "again"))
    at = rng.uniform(0.5, plan.quiet_at)
    if routine == "each":
        names = list(dict.fromkeys(one[0] for one in who if len(one) == 1))
        turns, pause = [(name,) for name in rng.sample(names, len(names))], rng.choice((0.5, 2.0))
    elif routine == "again":
        turns, pause = [rng.choice(who)] * rng.choice((3, 6, 12)), rng.choice((0.02, 0.3, 1.0))
    else:
        turns, pause = [], 0.0
    for whom in turns:
        if at < plan.quiet_at - 0.1:
            plan.faults.append(Fault(at, "upgrade_owner" if len(whom) > 1 else "upgrade", whom))
        at += pause * 2 * rng.random()
    while deadly and rng.random() < 0.4:
        at = rng.uniform(0.5, plan.quiet_at - 0.1)
        kind, lasts, whom = rng.choice(("upgrade_freeze", "upgrade_end")), _lasting(rng), rng.choice(who)
        messages = float(rng.choice((0, *range(1, 13), 20)))
        plan.faults.append(Fault(at, f"{kind}_owner" if len(whom) > 1 else kind, whom, lasts, messages))


def _draw_both(rng: random.Random, plan: Plan) -> None:
    """An agent that hands over while its hub does; often nothing else goes wrong, so that no flow may wait for long."""
    shape = plan.shape
    if rng.random() < 0.85 or shape.kernel_buffer / (2 * shape.wan) < SLOW:
        return  # as with moves
    drain = {"drain": {"timeout_sec": 6.0}}
    more = {"upgrade": {"timeout_sec": 5.0}}
    plan.shape = replace(shape, hub={**shape.hub, **drain, **more}, agent={**shape.agent, **drain, **more})
    if rng.random() < 0.7:
        plan.faults.clear()
    for _ in range(rng.choice((1, 1, 2))):
        at = min(rng.choice(plan.trips).at + rng.expovariate(2.0), plan.quiet_at - 0.1)
        lasts, how = rng.choice((0.0, 12.0)), float(rng.randrange(16))
        plan.faults.append(Fault(at, "upgrade_both", (agent_name(rng.choice(shape.agents)), "owner"), lasts, how))


def agent_name(shape: AgentShape) -> str:
    """The process of an agent."""
    return f"agent-{shape.tenant + '-' if shape.tenant else ''}{shape.agent_id}"
