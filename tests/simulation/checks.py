"""What must hold, always, now and then, and at the end.

The programs check their own bytes and ends as they come (see `programs`). Here is what is seen from outside: the log's
lines as they are written, the processes' memory at intervals, the outcome of every trip, and what is left when all is
over.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from ncfast.agent.agent import Agent
from ncfast.core.states import FlowState
from ncfast.hub.hub import Hub
from ncfast.hub.session import AgentSession
from ncfast.observe.readiness import State

from .cluster import START, Cluster
from .kernel import NEVER as NOT_YET
from .plan import SLOW, agent_name
from .processes import HubProcess, Life, Process
from .programs import CLONE, Trip

READ = 66 * 1024  # bytes of memory: a first byte that came before its flow, headers, and what was asked while paused
CHUNK = 96 * 1024  # bytes by which a bound may be passed: it is looked at before a read, not after
GRACE_SLACK = 3.0  # seconds beyond its grace until a flow without a way must be gone: two looks, and a reset
MOVE_TIME = 80.0  # seconds within which an agent that was asked to move has moved, or stays
TOLD_AFTER = 0.5  # seconds after which everybody knows that an agent is about to end
SERVED = 8.0  # seconds of good ways within which a flow that waits for one must have gone on
SEEN = 1.0  # seconds within which every hub has seen a claim, if nothing is wrong
HEALTHY = 6.0  # seconds from when a target can be reached again until its agent has announced it
SETTLED = 2.0  # seconds after the start in which links and standbys come about
HEARD = 2.0  # seconds within which a hub hears from another that is well
AMPLE = 1 << 24  # bytes of memory that no plan's flows need
TURNS = 16  # opens in progress that an agent needs, so that nobody waits for a turn for long
NOTICED = 1.5  # seconds from the timeout of a silent link to the next owner and the news of it
OPENING = 3.0  # seconds from the connection at the target to the end of the open, under load

# What honest peers never do to each other, whatever the network does.
NEVER = frozenset(
    {
        "protocol_error",
        "flood",
        "message_too_big",
        "version",
        "unauthorized",
        "internal",
        "flow_control",
        "resume_denied",
        "token_expired",
        "scope_denied",
    }
)
NEVER_EVENTS = frozenset(
    {
        "identity_mismatch",
        "resume_denied",
        "scope_denied",
        "auth_failed",
        "token_expired",
        "replica_displaced",
        "replica_id_in_use",
        "relay_refused",
        "handover_defect",
        "handover_message_failed",
    }
)


class Watch:
    """Looks on."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.epochs: dict[tuple[str, int], str] = {}  # (agent's life, epoch) -> the hub's session
        self.newest: dict[str, int] = {}  # the epoch last granted to an agent's life
        self.holders: dict[
            tuple[str, int], str
        ] = {}  # (agent's life, epoch) -> the hub's life and session that serve under it
        self.losses: list[tuple[float, str, str, str]] = []  # tunnels: when, agent, hub, why
        self.counts: Counter[str] = Counter()
        self.owners: dict[str, list[tuple[float, str]]] = {}  # agent -> when which hub began to own it, "" for none
        self.links: dict[tuple[str, str], list[tuple[float, int]]] = {}  # (hub, peer) -> since when so many links stand
        # hub -> its life and commands so far if its view is not fresh, and the flows that it had
        self.stale: dict[str, tuple[tuple[int, int] | None, frozenset[bytes], frozenset[str]]] = {}
        self.connected: dict[str, float] = {}  # a hub's session -> when it began to own
        self.moves: dict[str, float] = {}  # agent -> when it was last asked to move
        self.unrelayed: dict[tuple[str, str], float] = {}  # (hub, cid): a flow with a way to an owner that has none
        self.suspects: set[tuple[str, str, str]] = set()
        self.evicted: set[str] = set()  # clients whose flows have ended as overloaded
        self.owning: dict[str, str] = {}  # agent -> which of its lives was owned last
        self.settled: set[Life] = set()  # heirs that hold no more than they may: what is passed may be as much again
        self.upgrades: dict[str, float] = {}  # process -> when its upgrade under way has begun
        self.given: list[tuple[float, float, str]] = []  # (from, to, hub): its agents are asked to come, or else

    # the log

    def on_log(self, process: str, event: str, fields: dict[str, Any]) -> None:
        self.counts[event] += 1
        reason = fields.get("reason")
        if event in NEVER_EVENTS and self.cluster.forger.on_log(process, event, fields):
            return
        if event == "flow_closed" and reason == "resume_denied" and self.cluster.forger.lied_about(fields["cid"]):
            return
        if event == "epoch_forgotten":
            self.newest.pop(self._life(process), None)
        if reason == "protocol_error" and self._deluded(process, fields):
            return
        if event in NEVER_EVENTS or (
            reason in NEVER
            and event
            in (
                "flow_closed",
                "agent_disconnected",
                "standby_disconnected",
                "tunnel_down",
                "standby_down",
                "mesh_link_down",
            )
        ):
            self.world.problem(f"{process}: {event} {reason or ''} {fields.get('detail', '')}")
        if event in ("upgrade_started", "upgrade_failed", "upgraded"):
            self._upgrading(process, event, reason)
        if event == "upgrade_taken" and fields["lost"]:
            self.world.problem(f"{process}: {fields['lost']} flows that were passed could not be put together")
        if event == "tunnel_up":
            assert self.world.current is not None
            self.owning[process] = self.world.current.name
            self._granted(process, fields)
            self.owners.setdefault(process, []).append((self.world.now, host_of(fields["hub"])))
        elif event in ("mesh_link_up", "mesh_link_down") and fields.get("replica"):
            if event == "mesh_link_down" and "this hub has left" in str(fields["detail"]):
                self._left_the_mesh(process, str(fields["replica"]))
            history = self.links.setdefault((process, str(fields["replica"])), [])
            links = history[-1][1] if history else 0
            history.append(
                (
                    self.world.now if event == "mesh_link_down" or not links else history[-1][0],
                    max(0, links + (1 if event == "mesh_link_up" else -(fields.get("connected_sec") is not None))),
                )
            )
        elif event == "agent_connected":
            self.connected[fields["session"]] = self.world.now
            self._serving()
        elif event == "move_asked":
            self._moves(process)
        elif event == "tunnel_down" and self._is_of_a_predecessor(process):
            pass
        elif event == "tunnel_down":
            hub = host_of(fields["hub"])
            if not self._has_moved(process, str(reason)):
                self.losses.append((self.world.now, process, hub, str(reason)))
            if self.owners.get(process, [(0.0, "")])[-1][1] == hub:
                self.owners[process].append((self.world.now, ""))
        elif event == "flow_closed":
            self.counts["closed after a hand-over"] += reason == "closed" and bool(fields.get("handovers"))
            self.counts[f"flow_closed {reason} at {process.partition('-')[0]}"] += 1
            if reason == "overloaded" and process in self.cluster.hubs:
                self._overloaded(process, fields)

    def _upgrading(self, process: str, event: str, reason: Any) -> None:
        now = self.world.now
        if event == "upgrade_started":
            self.upgrades[process] = now
            return
        begun = self.upgrades.pop(process, now)
        self.given.append((begun, now, process))
        upset = process in self.cluster.leaving or any(
            name == process and since <= now and until >= begun for since, until, name in self.cluster.upsets
        )
        if event == "upgrade_failed" and not upset and not self._out_of_reach(process, begun, str(reason)):
            self.world.problem(f"{process}: an upgrade has failed: {reason}")

    def _out_of_reach(self, agent: str, begun: float, reason: str) -> bool:
        """Whether an agent's successor got no tunnel to a hub to which there was no way, or that was about to end."""
        dialled = re.search(r"it got no tunnel \((\S+): ", reason)
        if dialled is None:
            return False
        hosts = {agent, host_of(dialled[1])}
        return bool(hosts & self.cluster.leaving.keys()) or any(
            one.hosts & hosts and one.until + self.cluster.recovery >= begun for one in self.cluster.outages
        )

    def _is_of_a_predecessor(self, process: str) -> bool:
        """Whether it is an agent that has handed over of which the log tells."""
        assert self.world.current is not None
        return self.owning.get(process, "") not in ("", self.world.current.name)

    def _left_the_mesh(self, process: str, peer: str) -> None:
        """A hub that is turned off ends a link when no flow is left on it."""
        hub = self.cluster.hubs[process].hub
        if hub is None or hub.ground.mode != "off" or hub.readiness.state is not State.SERVING:
            return
        for flow in hub.flows.values():
            if flow.info.owner == peer and flow.detached_at == self.world.now:
                self.world.problem(f"{process} has left the mesh, and flow {flow.cid.hex()} its way to {peer}")

    def _overloaded(self, process: str, fields: dict[str, Any]) -> None:
        """Who comes when an agent has no turn left waits for one; only memory, or time, may run out."""
        cluster = self.cluster
        hold = cluster.hubs[process].config.listeners[0].hold_sec
        self.evicted.add(":".join(map(str, fields["client"][:2])))
        if cluster.plan.shape.least_memory >= AMPLE and fields["duration"] < hold:
            self.world.problem(f"{process}: {fields['client']} was not held, but reset as overloaded")

    def _moves(self, process: str) -> None:
        """An agent is asked to move: by an operator, or by a hub that levels, which has rules for it."""
        self.moves[process] = self.world.now
        if process not in self.cluster.hubs:
            return
        hub = self.cluster.hubs[process].hub
        assert hub is not None
        session = list(hub.level._asked.values())[-1].session
        if not hub.registry.is_healthy():
            self.world.problem(f"{process} asks {session.key} to move while its registry is away")
        if self.cluster.by_hand:
            return
        self.counts["levelled"] += 1
        stood = self.world.now - self.connected[session.session_id]
        if stood < hub.ground.config.ha.level.rest_sec - 0.001:
            self.world.problem(f"{process} asks {session.key} to move, which came {stood:.3f} s ago")

    def _has_moved(self, process: str, reason: str) -> bool:
        """Whether an agent's tunnel has ended because the agent, as it was asked to, is owned by another hub now: that
        comes first, whatever happens. The former owner's word may be lost to a reset, if bytes of the agent's were on
        their way when it closed."""
        if (
            reason not in ("going_away", "connection_lost")
            or self.world.now - self.moves.get(process, -NOT_YET) > MOVE_TIME
        ):
            return False
        agent = self.cluster.agents.get(process)
        if agent is None or agent.agent is None:
            return False
        owner = agent.agent.tunnels.owner
        if owner is not None:  # it has just taken the lost one's place
            return True
        self.counts["moved before it knew"] += 1
        instance, epoch = agent.agent.ground.instance, agent.agent.tunnels.last_epoch
        return any(
            entry.instance == instance and entry.epoch > epoch
            for one in self.cluster.hubs.values()
            if one.hub is not None
            for entry in one.hub.registry.view.agents.values()
        )

    def _granted(self, process: str, fields: dict[str, Any]) -> None:
        """An agent was granted an epoch."""
        life = self._life(process)
        epoch = fields["epoch"]
        if epoch <= self.newest.get(life, 0):
            self.world.problem(f"{life} was granted epoch {epoch} after {self.newest[life]}")
        self.newest[life] = epoch
        other = self.epochs.setdefault((life, epoch), str(fields["session"]))
        if other != fields["session"]:
            self.world.problem(f"{life} has epoch {epoch} twice")

    def _life(self, process: str) -> str:
        return f"{process}.{(self.cluster.processes.get(process) or self.cluster.clones[process]).lives}"

    def _deluded(self, process: str, fields: dict[str, Any]) -> bool:
        """Whether a tunnel has ended because its agent remembers an epoch that nobody can have granted: the hub does
        not believe it, or has granted one, asked before, that is below it."""
        detail, agents = str(fields.get("detail", "")), self.cluster.deluded
        if process in self.cluster.hubs:
            its = any(name.endswith(f"-{fields.get('agent_id')}") for name in agents)
            return its and detail.startswith(("last_epoch is above", "closed by peer with 1002"))
        return process in agents and (detail.endswith(" 1002") or detail.startswith("granted epoch"))

    def _serving(self) -> None:
        """A hub serves an agent under an epoch: no other may do so under the same. One that is alone has no registry
        beside the agent's memory: what that has not heard of before the hub was killed is granted again."""
        alone = not self.cluster.plan.shape.mode
        for process in self.cluster.hubs.values():
            for hub, session in ((one, session) for one in process.hubs for session in one.sessions):
                if session.owns and not session.link.closed:
                    holder = f"{hub.net.loop.name} {session.session_id}"
                    key = f"{session.key} {session.instance} {process.lives if alone else ''}", session.epoch
                    if self.holders.setdefault(key, holder) != holder:
                        self.world.problem(
                            f"{session.key} is served under epoch {session.epoch} by {holder} and by "
                            f"{self.holders[key]}"
                        )

    def good_since(self, hub: str, agent: str, when: float) -> float:
        """Since when, looked at from `when`, the agent has had an owner that the hub could reach, and nothing was wrong
        between them; NOT_YET if that was not so."""
        since, owner = self._last(self.owners.get(agent, []), when)
        if not owner:
            return NOT_YET
        if owner != hub:
            for way in ((hub, owner), (owner, hub)):
                at, links = self._last(self.links.get(way, []), when)
                if not links:
                    return NOT_YET
                since = max(since, at)
        ends = [
            one.until for one in self.cluster.outages if one.since <= when and self.cluster.matters(one, hub, agent)
        ]
        return max([since, *ends])

    @staticmethod
    def _last(history: list[tuple[float, Any]], when: float) -> tuple[float, Any]:
        """The newest entry that is not after `when`."""
        return next((entry for entry in reversed(history) if entry[0] <= when), (NOT_YET, None))

    # now and then

    def inspect(self) -> None:
        """Bounds that hold at any time, and sums that always agree."""
        for process in self.cluster.processes.values():
            self._watch_lives(process)
            for owner in [life.owner for life in process.all if life.owner is not None]:
                self._inspect(process, owner)

    def _watch_lives(self, process: Process) -> None:
        """Each flow is at one of a process's lives."""
        seen: dict[bytes, str] = {}
        for life in process.all:
            for cid in life.owner.flows if life.owner is not None else ():
                other = seen.setdefault(cid, life.loop.name)
                if other != life.loop.name:
                    self.world.problem(f"flow {cid.hex()} is at {other} and at {life.loop.name}")

    def _inspect(self, process: Process, owner: Hub | Agent) -> None:
        context, shape = owner.ground.context, self.cluster.plan.shape
        budget = shape.memory if isinstance(owner, Hub) else shape.agent_memory
        held, life = context.held - context.relayed, owner.net.loop.life  # type: ignore[attr-defined]
        if held > (budget if life.parent is None or life in self.settled else 2 * budget) + READ:
            self.world.problem(f"{process.name} holds {context.held} bytes, its budget is {budget}")
        if len(process.all) == 1 and held <= budget:
            self.settled.add(life)
        if context.live != len(owner.flows):
            self.world.problem(f"{process.name}: {context.live} flows live, {len(owner.flows)} are known")
        for link in links_of(owner):
            if link.inflight > link.max_inflight + CHUNK:
                self.world.problem(
                    f"{process.name}: {link.inflight} bytes in flight to {link.peer}, the cap is {link.max_inflight}"
                )
            if link.relay_bytes > 2 * link.max_inflight + CHUNK:
                self.world.problem(f"{process.name}: {link.relay_bytes} relayed bytes wait for {link.peer}")
        self._watch_flows(process, owner)
        if isinstance(owner, Hub):
            assert isinstance(process, HubProcess)
            self._watch_hub(process, owner)
            self._watch_relays(process, owner)
            opened = owner.stats.flows_opened
            closed = sum(owner.stats.flows_closed.values()) + owner.stats.flows_passed
            if opened != closed + len(owner.flows):
                self.world.problem(
                    f"{process.name}: {opened} flows opened, {closed} closed or passed, {len(owner.flows)} active"
                )

    def _watch_hub(self, process: HubProcess, hub: Hub) -> None:
        """What a hub must not go on doing: serve an agent that it knows to be another's; let a flow wait for longer
        than its time."""
        if process.frozen or len(process.all) > 1:
            self.suspects = {suspect for suspect in self.suspects if suspect[0] != process.name}
            return
        self._watch_routes(process, hub)
        for relay in hub.relays.by_cid.values():
            flow = self._at_its_origin(relay.cid)
            if relay.info.opening and flow is not None and flow.info.agent_key == relay.info.session.key:
                if flow.info.epoch < relay.epoch:
                    self.world.problem(
                        f"{process.name} opened {relay.cid.hex()} under epoch {relay.epoch}, it was asked under "
                        f"{flow.info.epoch}"
                    )
        view = hub.registry.view
        for session in hub.sessions:
            suspect = (process.name, session.session_id, "leaving")
            if session.owns and not session.draining and self._told(process.name, session):
                self._suspect(suspect, f"{process.name} does not know that {session.key} is about to end")
            else:
                self.suspects.discard(suspect)
            entry = view.agent(session.key)
            suspect = (process.name, session.session_id, "fenced")
            if session.owns and entry is not None and entry.epoch > session.epoch:
                self._suspect(
                    suspect,
                    f"{process.name} serves {session.key} under {session.epoch} and knows "
                    f"{entry.owner} to have {entry.epoch}",
                )
            else:
                self.suspects.discard(suspect)

    def _watch_routes(self, process: HubProcess, hub: Hub) -> None:
        """Whether new clients go to agents of other hubs while nothing is heard of Redis."""
        stale = None if hub.registry.view.fresh else (process.lives, hub.stats.registry_commands)
        before, known, ours = self.stale.get(process.name, (None, frozenset(), frozenset()))
        if stale is not None and stale == before:
            new = [flow.info for cid, flow in hub.flows.items() if cid not in known]
            # an agent that was here when its client came may have moved meanwhile
            crossed = sum(info.peer is not None and info.agent_key not in ours for info in new)
            self.counts["opened by the last view"] += crossed
            if crossed and self.cluster.plan.shape.without_redis == "local_only":
                self.world.problem(f"{process.name} goes by its last view, and is to serve its own agents only")
        owned = frozenset(session.key for session in hub.sessions if session.owns)
        self.stale[process.name] = stale, frozenset(hub.flows), owned

    def _at_its_origin(self, cid: bytes) -> Any:
        """The flow at the hub that has its client, or None."""
        flows = (hub.flows.get(cid) for one in self.cluster.hubs.values() for hub in one.hubs)
        return next((flow for flow in flows if flow is not None), None)

    def _watch_relays(self, process: HubProcess, hub: Hub) -> None:
        """A flow whose way goes by another hub has a relay there, or has heard that it has none."""
        cluster, now = self.cluster, self.world.now
        hubs = set(cluster.hubs)
        slow = any(one.hosts <= hubs and one.until + cluster.recovery >= now for one in cluster.outages)
        for flow in hub.flows.values():
            owner = cluster.hubs[flow.info.owner] if flow.attached and flow.info.peer is not None else None
            key = process.name, flow.cid.hex()
            if (
                slow
                or owner is None
                or flow.state not in (FlowState.OPEN, FlowState.HALF_LOCAL)
                or not owner.running
                or len(owner.all) > 1
                or owner.hub is None
                or flow.cid in owner.hub.relays.by_cid
            ):
                self.unrelayed.pop(key, None)
            elif now - self.unrelayed.setdefault(key, now) > HEARD:
                self.world.problem(f"{process.name}: flow {key[1]} takes {owner.name} for its way, which has no relay")

    def _told(self, hub: str, session: AgentSession) -> bool:
        """Whether the agent has said to this hub, over a way that was well, that it is about to end."""
        cluster, tenant = self.cluster, session.identity.tenant
        agent = next(
            agent_name(one)
            for one in cluster.plan.shape.agents
            if (one.agent_id, one.tenant) == (session.agent_id, tenant)
        )
        begun = cluster.leaving.get(agent)
        return (
            begun is not None
            and self.world.now - begun > TOLD_AFTER
            and not self._slow
            and not any(
                cluster.matters(one, hub, agent) and one.until + cluster.recovery > begun for one in cluster.outages
            )
        )

    @property
    def _slow(self) -> bool:
        """Whether what was said over a tunnel may be on its way for long, behind what was sent before."""
        shape = self.cluster.plan.shape
        return shape.kernel_buffer / (2 * shape.wan) < SLOW

    def _suspect(self, suspect: tuple[str, str, str], what: str) -> None:
        """Twice in a row is no coincidence."""
        if suspect in self.suspects:
            self.world.problem(what)
        self.suspects.add(suspect)

    def _watch_flows(self, process: Process, owner: Hub | Agent) -> None:
        grace = owner.ground.config.flow.grace_sec
        for flow in owner.flows.values():
            if isinstance(owner, Hub) and flow.attached and flow.info.epoch != flow.epoch:
                self.world.problem(
                    f"{process.name}: flow {flow.cid.hex()} goes under epoch {flow.epoch}, it is known under "
                    f"{flow.info.epoch}"
                )
            if (
                flow.detached_at >= 0
                and self.world.now - flow.detached_at > grace + GRACE_SLACK
                and not process.frozen
                and self.world.now - process.thawed_at > GRACE_SLACK
            ):
                self.world.problem(
                    f"{process.name}: flow {flow.cid.hex()} has waited "
                    f"{self.world.now - flow.detached_at:.1f} s for a way, "
                    f"its grace is {grace} s"
                )

    # at the end

    def judge(self) -> None:
        """Every trip, every tunnel that was lost, and what is left."""
        for trip in self.cluster.clients.trips:
            self._judge(trip)
            self._judge_agent(trip)
        for when, agent, hub, reason in self.losses:
            if not agent.startswith(CLONE):
                self._judge_loss(when, agent, hub, reason)
        for process in self.cluster.processes.values():
            self._leftovers(process)
        if self.cluster.plan.shape.mode:
            self._cluster()
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
                and not self._slow
                and begun + TOLD_AFTER < trip.starts_at
                and trip.reached_at <= ended
                and not any(
                    since <= trip.reached_at and until >= begun
                    for since, until in cluster.windows(trip.hub, name)
                    if since != begun
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
        if shape.least_memory < AMPLE and ":".join(map(str, trip.address[:2])) in self.evicted:
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
                if since <= opened and self.good_since(trip.hub, agent, broken) > broken - SERVED:
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
            self.good_since(trip.hub, agent, until) <= since - SEEN
            and self._last(self.owners[agent], until)[1] not in cut_off
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
        drain = cluster.hubs[hub].config.drain.timeout_sec
        for since, until, name in self.given:  # the agent did not come within the time that it had
            if name == hub and since + drain <= when <= until + 1.0:
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

    def _cluster(self) -> None:
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


def host_of(url: str) -> str:
    return url.partition("://")[2].partition(":")[0]


def links_of(owner: Hub | Agent) -> list[Any]:
    """All its links that stand."""
    if isinstance(owner, Hub):
        return [session.link for session in owner.sessions] + [peer.link for peer in owner.ways.peers()]
    return [tunnel.link for tunnel in owner.tunnels.all()]
