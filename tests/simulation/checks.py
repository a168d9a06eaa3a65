"""What must hold, always, and now and then.

The programs check their own bytes and ends as they come (see `programs`). Here is what is seen from outside meanwhile:
the log's lines as they are written, the processes' memory at intervals. `verdict` has what is seen when all is over.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from ncfast.agent.agent import Agent
from ncfast.config.hub import HubConfig
from ncfast.core.states import FlowState
from ncfast.hub.hub import Hub
from ncfast.hub.session import AgentSession
from ncfast.observe.readiness import State

from .cluster import Cluster
from .kernel import NEVER as NOT_YET
from .plan import SLOW, agent_name
from .processes import HubProcess, Life, Process

# bytes of memory beyond a budget, for each of its shares: what a client has said before its flow was there, headers,
# and what was asked while paused
READ = 66 * 1024
CHUNK = 96 * 1024  # bytes by which a bound may be passed: it is looked at before a read, not after
GRACE_SLACK = 3.0  # seconds beyond its grace until a flow without a way must be gone: two looks, and a reset
STILL = 2.0  # seconds for which a flow may be without a way when all that happens is upgrades of an agent and its hub
MOVE_TIME = 80.0  # seconds within which an agent that was asked to move has moved, or stays
TOLD_AFTER = 0.5  # seconds after which everybody knows that an agent is about to end
HEARD = 2.0  # seconds within which a hub hears from another that is well
AMPLE = 1 << 24  # bytes of memory that no plan's flows need

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
        self.taking: dict[str, str] = {}  # process -> which of its lives has taken what another one had
        self.settled: set[Life] = set()  # heirs that hold no more than they may: what is passed may be as much again
        self.returned: set[Life] = set()  # what they have passed has come back: as heirs
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
        if event in ("upgrade_started", "upgrade_failed", "upgraded", "upgrade_cut"):
            self._upgrading(process, event, reason)
        if event == "upgrade_taken":
            assert self.world.current is not None
            self.taking[process] = self.world.current.name
            if fields["lost"]:
                self.world.problem(f"{process}: {fields['lost']} flows that were passed could not be put together")
        if event == "upgrade_taken_back":
            assert self.world.current is not None
            self.returned.add(self.world.current.life)
            self.settled.discard(self.world.current.life)
        if event == "tunnel_up":
            assert self.world.current is not None
            self.owning[process] = self.world.current.name
            self.taking.pop(process, None)
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
        if event == "upgrade_failed":
            self.taking.pop(process, None)
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
        """Whether it is an agent that has handed over of which the log tells. Its successor may not have heard yet that
        it is owned, and why the hub has ended the former tunnel may be lost to a reset."""
        assert self.world.current is not None
        life = self.world.current.name
        return self.owning.get(process, life) != life or self.taking.get(process, life) != life

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
        since, owner = last(self.owners.get(agent, []), when)
        if not owner:
            return NOT_YET
        if owner != hub:
            for way in ((hub, owner), (owner, hub)):
                at, links = last(self.links.get(way, []), when)
                if not links:
                    return NOT_YET
                since = max(since, at)
        ends = [
            one.until for one in self.cluster.outages if one.since <= when and self.cluster.matters(one, hub, agent)
        ]
        return max([since, *ends])

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
        more = life.parent is not None or life in self.returned
        config = owner.ground.config
        shares = len(config.listeners if isinstance(config, HubConfig) else config.connectors)
        if held > (2 * budget if more and life not in self.settled else budget) + shares * READ:
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
            and not self.slow
            and not any(
                cluster.matters(one, hub, agent) and one.until + cluster.recovery > begun for one in cluster.outages
            )
        )

    @property
    def slow(self) -> bool:
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
        upgrades = self.cluster.plan.shape.moves_again and {one.kind for one in self.cluster.plan.faults} == {
            "upgrade_both"
        }
        for flow in owner.flows.values():
            if upgrades and isinstance(owner, Agent) and self.world.now - flow.detached_at > STILL:
                # one whose client has gone while it had no way is asked for by nobody (8.18)
                if flow.detached_at >= 0 and self._at_its_origin(flow.cid) is not None:
                    self.world.problem(f"{process.name}: flow {flow.cid.hex()} has stood still for {STILL:g} s")
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


def last(history: list[tuple[float, Any]], when: float) -> tuple[float, Any]:
    """The newest entry that is not after `when`."""
    return next((entry for entry in reversed(history) if entry[0] <= when), (NOT_YET, None))


def host_of(url: str) -> str:
    return url.partition("://")[2].partition(":")[0]


def links_of(owner: Hub | Agent) -> list[Any]:
    """All its links that stand."""
    if isinstance(owner, Hub):
        return [session.link for session in owner.sessions] + [peer.link for peer in owner.ways.peers()]
    return [tunnel.link for tunnel in owner.tunnels.all()]
