"""What must have held when all is over: the outcome of every trip, why each tunnel was lost, and what is left."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ncfast.agent.agent import Agent
from ncfast.hub.hub import Hub

from .checks import AMPLE, TOLD_AFTER, Watch, last, links_of
from .cluster import START
from .plan import agent_name
from .processes import HubProcess, Process
from .programs import CLONE, Trip

SERVED = 8.0  # seconds of good ways within which a flow that waits for one must have gone on
SEEN = 1.0  # seconds within which every hub has seen a claim, if nothing is wrong
HEALTHY = 6.0  # seconds from when a target can be reached again until its agent has announced it
SETTLED = 2.0  # seconds after the start in which links and standbys come about
TURNS = 16  # opens in progress that an agent needs, so that nobody waits for a turn for long
NOTICED = 1.5  # seconds from the timeout of a silent link to the next owner and the news of it
OPENING = 3.0  # seconds from the connection at the target to the end of the open, under load

TASKS = Counter(
    {
        "health": 8,
        "timers": 1,
        "end": 2,
        "tunnel": 1,
        "standby": 1,
        "registry": 1,
        "registry-notices": 1,
        "registry-sweeper": 1,
    }
)


class Verdict:
    """On what a watch has seen."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.cluster = watch.cluster
        self.world = watch.world
        self.counts = watch.counts

    def judge(self) -> None:
        """Every trip, every tunnel that was lost, and what is left."""
        for trip in self.cluster.clients.trips:
            self._judge(trip)
            self._judge_agent(trip)
        for when, agent, hub, reason in self.watch.losses:
            if not agent.startswith(CLONE):
                self._judge_loss(when, agent, hub, reason)
        for process in self.cluster.processes.values():
            self._leftovers(process)
        if self.cluster.plan.shape.mode:
            self._judge_cluster()
        self.counts += self.cluster.forger.counts
        for hub in self.cluster.hubs.values():
            self.counts += hub.harvest()
        checks = len(self.cluster.agents) if self.cluster.plan.shape.health else 0
        for name, target in self.cluster.targets.items():
            left = len(target.open) - min(checks, target.arriving)
            if left:
                self.world.problem(f"{name}: {left} connections are left")

    def _judge(self, trip: Trip) -> None:
        client, target = trip.client, trip.target
        if trip in self.cluster.clients.open or (trip.reached and target.done_at < 0):
            self.world.problem(f"{trip} has not come to an end: {client} {target}")
            return
        if client.quit in ("reset", "close") or target.quit in ("reset", "close"):
            return
        whole = (
            client.saw == "end"
            and target.saw == "end"
            and client.sent == trip.client_script.total == target.received
            and target.sent == trip.target_script.total == client.received
        )
        if whole:
            self.counts["whole"] += 1
            self.counts["whole after a minute's pause"] += max(trip.client_script.stall, trip.target_script.stall) >= 60
            self.counts["whole after a silence"] += self._came_in_a_silence(trip)
            return
        excuse = self.excuse(trip)
        self.counts["excused"] += 1
        if not excuse:
            self.world.problem(f"{trip} was broken without an excuse: {client} {target}")

    def _judge_agent(self, trip: Trip) -> None:
        """An agent that ends gets no new flows."""
        cluster = self.cluster
        for begun, ended, name in cluster.drains:
            if (
                name == trip.agent
                and not self.watch.slow
                and begun + TOLD_AFTER < trip.starts_at
                and trip.reached_at <= ended
                and not any(
                    one.since <= trip.reached_at and one.until + cluster.recovery >= begun
                    for one in cluster.outages
                    if one.since != begun and cluster.matters(one, trip.hub, name)
                )
            ):
                self.world.problem(f"{trip} was opened at {name}, which was about to end")

    def excuse(self, trip: Trip) -> str:
        """Why this trip may have been broken; "" if it may not."""
        cluster, shape = self.cluster, self.cluster.plan.shape
        if trip.kind == "probe":
            return ""
        if trip.excuses:
            return next(iter(trip.excuses))
        if shape.least_memory < AMPLE and ":".join(map(str, trip.address[:2])) in self.watch.evicted:
            return "memory was short, and the heaviest pays"
        end = max(trip.client.done_at, trip.target.done_at)
        agents = (trip.agent,) if trip.agent else trip.agents
        for since, until, name in cluster.fatal:
            if (name == trip.hub or name in agents) and since <= end and until >= trip.starts_at:
                return f"{name} was down"
        opened = trip.reached_at + OPENING if trip.reached else end
        broken = trip.client.done_at if trip.client.saw != "end" else end
        half_close = shape.hub["flow"]["half_close_sec"]
        if max(trip.client_script.stall, trip.target_script.stall) >= half_close - 1.0:
            return (
                "a reader paused, behind the other side's end and with all in its kernel, for longer than is waited for"
            )
        patience = min(shape.hub["flow"]["flow_grace_sec"], half_close)
        for hub_since, hub_until, name in cluster.modes:
            if hub_since <= opened and hub_until + cluster.recovery >= trip.starts_at:
                return f"{name} was not active when it began"
        for agent in agents:
            for since, until in cluster.windows(trip.hub, agent):
                if since > end or until < trip.starts_at or self._covered(trip, agent, since, until):
                    continue
                if until - since >= patience or shape.mode in ("off", "shadow") or cluster.apart(since, until):
                    return f"no way between {trip.hub} and {agent} for long"
                if since <= opened and self.watch.good_since(trip.hub, agent, broken) > broken - SERVED:
                    return f"no way between {trip.hub} and {agent} when it began"
        cut_off = {
            agent
            for since, until, name, agent in cluster.unreachable
            if name == f"target-{trip.connector}" and since <= opened and until + 6.0 >= trip.starts_at
        }
        if cut_off and ("" in cut_off or cut_off >= set(agents)):  # otherwise another agent is to be tried
            return "the target was away when it began"
        if not trip.reached and shape.mode in ("off", "shadow"):
            return "the agent may be at another hub"
        if shape.mode:
            for since, until in cluster.registry_windows():
                if since <= opened and until >= trip.starts_at and not self._guided(trip, since, opened):
                    return "the registry was away when it began"
        if not trip.reached and (shape.least_memory < AMPLE or shape.hub["limits"]["pending_opens_per_agent"] < TURNS):
            return "the hub had no room"
        return ""

    def _guided(self, trip: Trip, since: float, until: float) -> bool:
        """Whether the hub's last view of before `since`, when trouble with Redis began, led to an agent of the trip
        until `until`."""
        cluster, shape = self.cluster, self.cluster.plan.shape
        if shape.without_redis != "last_view":
            return False
        if shape.health and any(
            name == f"target-{trip.connector}" and begun <= until and ended + HEALTHY >= since - SEEN
            for begun, ended, name, _ in cluster.unreachable
        ):
            return False  # what the agent announces of it may come to nobody
        cut_off = {hub for begun, ended, hub in cluster.cut_off if begun <= until and ended >= since}
        return any(
            self.watch.good_since(trip.hub, agent, until) <= since - SEEN
            and last(self.watch.owners[agent], until)[1] not in cut_off
            for agent in trip.agents
        )

    def _came_in_a_silence(self, trip: Trip) -> bool:
        return any(
            since <= trip.starts_at <= until - self.cluster.recovery and self._covered(trip, trip.agent, since, until)
            for since, until in self.cluster.windows(trip.hub, trip.agent)
        )

    def _covered(self, trip: Trip, agent: str, since: float, until: float) -> bool:
        """Whether all that was wrong then is a hub that stood still, in a cluster that was well until then: the agent
        has a standby elsewhere, and whoever comes to another hub is held until that has taken over."""
        cluster, shape = self.cluster, self.cluster.plan.shape
        hub = cluster.hubs[trip.hub].config
        silences = [
            one
            for one in cluster.outages
            if cluster.matters(one, trip.hub, agent) and one.since <= until and one.until + cluster.recovery >= since
        ]
        noticed = max(hub.tunnel.ping_timeout_sec, hub.ha.mesh.ping_timeout_sec) + NOTICED
        return (
            shape.mode == "active"
            and next(one.standby for one in shape.agents if agent_name(one) == agent)
            and [(one.silent, one.hosts) for one in silences] == [(True, silences[0].hosts)]
            and silences[0].hosts <= set(cluster.hubs) - {trip.hub}
            and since >= START + SETTLED
            and not cluster.apart(since - SETTLED, until)
            and not any(
                one <= until and other + cluster.registry_recovery >= since for one, other in cluster.registry_troubles
            )
            and shape.least_memory >= AMPLE
            and hub.limits.pending_opens_per_agent >= TURNS
            and min(hub.listeners[0].hold_sec, hub.flow.open_timeout_sec, hub.flow.grace_sec) >= noticed
        )

    def _judge_loss(self, when: float, agent: str, hub: str, reason: str) -> None:
        cluster = self.cluster
        for since, until in cluster.windows(hub, agent):
            if since <= when <= until:
                return
        for since, until, name in cluster.fatal:
            if name in (agent, hub) and since - 1.0 <= when <= until + 1.0:
                return
        patience = cluster.hubs[hub].config.drain.timeout_sec if cluster.plan.shape.moves_again else 0.0
        for since, until, name in self.watch.given:  # the agent did not come within the time that it had
            if name == hub and since + patience <= when <= until + 1.0:
                return
        if reason == "going_away":  # a claim that a frozen registry has carried out late
            for since, until in cluster.registry_troubles:
                if since <= when <= until + cluster.registry_recovery:
                    return
        self.world.note("")
        self.world.problems.append(f"at {when - START:.6f}: {agent} lost its tunnel to {hub} without a cause: {reason}")

    def _leftovers(self, process: Process) -> None:
        if not process.running:
            self.world.problem(f"{process.name} does not run")
            return
        owner = process.owner
        assert owner is not None
        if len(process.all) > 1:
            self.world.problem(f"{process.name} is still handing over")
        context, net = owner.ground.context, process.net
        links = links_of(owner)
        left: dict[str, Any] = {
            "flows": len(owner.flows),
            "live": context.live,
            "windows": context.windows,
            "segments": context.pool.in_use,
            "held": context.pool.held,
            "backlog": context.backlog,
            "bytes": context.bytes_read - context.bytes_out - context.discarded,
        }
        for link in links:
            left[f"in flight to {link.peer}"] = link.inflight
            left[f"flows to {link.peer}"] = link.load
            left[f"queued to {link.peer}"] = link.queued
            left[f"relayed to {link.peer}"] = link.relay_bytes
        left["sockets"] = net.sockets - len(links)
        checks = len(owner.services.targets) if isinstance(owner, Agent) and self.cluster.plan.shape.health else 0
        left["transports"] = max(0, len(net.transports) - len(links) - checks)
        left["kernel sockets"] = max(0, len(process.host.sockets) - len(links) - checks)
        left["watches"] = len(net._watched) - len(links)
        if isinstance(owner, Hub):
            self._hub_leftovers(owner, left)
        else:
            left["dials"] = sum(target.dials for target in owner.services.targets.values())
            standby = (
                len(self.cluster.hubs) > 1 and self.cluster.plan.shape.mode == "active" and owner.ground.config.standby
            )
            left["tunnels"] = len(links) - 1 - standby
            left["owner"] = int(owner.tunnels.owner is None)
        names = Counter(task.get_name() for task in net._tasks)
        left["tasks"] = sum((names - TASKS).values()) if not checks else 0
        left["timers"] = max(0, len(process.loop.timers) - 8 - checks)
        for what, count in left.items():
            if count:
                self.world.problem(f"{process.name}: {what} {count} left {dict(names) if what == 'tasks' else ''}")

    def _judge_cluster(self) -> None:
        """Links, views and ownership have settled."""
        cluster, shape = self.cluster, self.cluster.plan.shape
        linked = shape.mode in ("active", "shadow")
        for one in cluster.hubs.values():
            hub = one.hub
            if hub is None:
                continue
            if reasons := hub.readiness.reasons():
                self.world.problem(f"{one.name} is not well: {reasons}")
            for other in cluster.hubs.values():
                if other is one:
                    continue
                ends = cluster.kernel.between(one.host, other.host)
                if len(ends) != linked:
                    self.world.problem(f"{one.name} and {other.name} have {len(ends)} connections")
                if linked and (hub.ways.mesh is None or hub.ways.mesh.peer(other.name) is None):
                    self.world.problem(f"{one.name} has no link to {other.name}")
            if not shape.redis:
                continue
            if not hub.registry.is_healthy() or not hub.registry.view.fresh:
                self.world.problem(f"{one.name}'s registry is not healthy")
            if set(hub.registry.view.replicas) != set(cluster.hubs):
                self.world.problem(f"{one.name} sees the hubs {sorted(hub.registry.view.replicas)}")
            self._view(one)

    def _view(self, process: HubProcess) -> None:
        """What a hub sees of the agents is what is."""
        hub = process.hub
        assert hub is not None
        wanted = {}
        for one in self.cluster.hubs.values():
            for session in one.hub.sessions if one.hub is not None else ():
                if session.owns:
                    wanted[session.key] = (one.name, session.epoch, session.instance, session.connectors)
        seen = {
            key: (entry.owner, entry.epoch, entry.instance, entry.connectors)
            for key, entry in hub.registry.view.agents.items()
        }
        if seen != wanted:
            self.world.problem(f"{process.name} sees the agents {seen}, but they are {wanted}")

    def _hub_leftovers(self, hub: Hub, left: dict[str, Any]) -> None:
        left["opening"] = len(hub.pending)
        left["relays"] = len(hub.relays.by_cid)
        left["clients"] = sum(listener.active for listener in hub.listeners.values())
        left["sources"] = sum(len(listener.per_source) for listener in hub.listeners.values())
        left["held clients"] = len(hub.router.hold.flows()) + sum(hub.router.hold.count.values())
        left["flows by agent"] = len(hub.steering._flows_of)
        left["routes to sessions that have ended"] = sum(one not in hub.sessions._all for one in hub.sessions._routed)
        left["handshakes"] = len(hub.edge.pending)
