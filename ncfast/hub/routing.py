"""From a client's flow to an agent: which one, by which way, and again when that way is lost.

A way is the tunnel of an agent that is owned here, or the mesh link to the hub that owns it. Modes: `off` and `shadow`
take local ways only; `active` prefers them, and otherwise takes the less loaded of two random agents of other hubs
whose link is well (the power of two choices: Mitzenmacher, IEEE TPDS 2001). Of local agents it is the least loaded, or
where a connector has more than DRAWN, that of so many drawn by lot. The registry's cached view says who they
are; no flow waits for the registry. While Redis is away it is the last view that says so, for as long as that takes:
nothing is believed of it that is not checked. The owner opens only under the epoch that it holds, and that it lives
the link tells. `ha.without_redis: local_only` takes local ways only then.

Losing ways, in rules:
 1. A flow that the agent has accepted is the agent's for good: it is resumed, never opened elsewhere. The agent asks
    for it (M_RESUME) where it claims; we ask for it when a link to its owner comes up, and every `SEEK_EVERY` while it
    has no way.
 2. A flow that is still opening is opened again on the same agent, wherever that is: it may have seen the first open.
    If the agent has as many opens in progress as it may, the flow waits for its turn there, and goes nowhere else.
 3. A refusal sends the flow to another agent only if no target can have seen a byte of it: never one that comes by way
    of another hub when the open was sent more than once.
 4. What comes under an older epoch than the flow has seen is stale: it is refused, with the epoch that we know.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ncfast.core.errors import Reason
from ncfast.hub.choice import Choice
from ncfast.hub.client import EMPTY, ClientFlow, ClientInfo, Key
from ncfast.hub.ground import Ground
from ncfast.hub.hold import Hold
from ncfast.hub.pending import PendingOpens
from ncfast.hub.sessions import Sessions
from ncfast.hub.shadow import Shadow
from ncfast.hub.steering import Steering
from ncfast.hub.ways import Ways
from ncfast.registry import AgentEntry, DistributedRegistry

if TYPE_CHECKING:
    from ncfast.mesh.peer import Peer

STARTUP_HOLD = 5.0  # seconds after start in which every agent counts as reconnecting, as after a restart they all are
ROUTE_MEMORY = 4096  # connectors of departed agents remembered, to hold clients for them
SEEK_EVERY = 2.0  # seconds between two attempts of ours to resume a flow that has no way
# Seconds before a hub that says not_owner is asked again, doubled ASK_DOUBLES times at most (1.6 s): the news of a
# claim may reach us before its own hub.
ASK_AGAIN = 0.0125
ASK_DOUBLES = 7
# The hub that was asked does not own the agent (any longer).
NOT_HERE = frozenset({Reason.NOT_OWNER, Reason.STALE_EPOCH})
DIALLED = frozenset({Reason.TARGET_REFUSED, Reason.TARGET_UNREACHABLE, Reason.TARGET_TIMEOUT, Reason.NO_SUCH_CONNECTOR})


class Router(Choice):
    """Chooses: which agent a client's flow goes to, which clients wait, and what becomes of those that were refused."""

    def __init__(
        self,
        ground: Ground,
        sessions: Sessions,
        registry: DistributedRegistry,
        ways: Ways,
        pending: PendingOpens,
        steering: Steering,
    ) -> None:
        super().__init__(ground, sessions, ways, pending, steering, Hold(ground.clock))
        self._registry = registry
        self._departed: dict[Key, float] = {}  # when the last agent of a connector was lost
        self._barred: dict[Key, str] = {}  # connectors whose last agent, which it was, has been locked out
        self._elsewhere: dict[str, list[Key]] = {}  # what agents of other hubs served when we last looked
        self._served_elsewhere: Counter[Key] = Counter()  # how many of them serve a connector, live or not
        self.shadow = Shadow(
            ground, sessions, registry, lambda: self._guided, lambda info: self._remote_way(info) is not None
        )

    # clients

    def returns(self, flow: ClientFlow) -> None:
        """A flow that another process of this hub has passed, or could not take, and that has no way: it goes on as
        after a lost way, or as a new client if it was on none."""
        flow.info.on_opened = self._opened
        if not flow.info.agent_key:
            self._enter(flow)
            return
        self._steering.adopt(flow)
        awaited = self._ground.awaited
        if awaited is None or not awaited.came(flow.cid) or not (flow.attached or flow.closed):
            self._steering.return_to_way(flow)

    @property
    def _guided(self) -> bool:
        """Whether clients may go to agents of other hubs by what the view says."""
        return self._registry.view.fresh or self._ground.config.ha.without_redis == "last_view"

    def _remote_way(self, info: ClientInfo) -> tuple[AgentEntry, Peer] | None:
        if not self._guided:
            return None
        ways = []
        for entry in self._registry.view.routes(*info.key):
            peer = self._ways.peer(entry.owner)
            if (
                peer is not None
                and not peer.draining
                and not self._pending.full(entry.key, info.connector)
                and entry.key not in info.tried
                and (entry.key, entry.epoch) not in info.refused
                and entry.key not in self._ground.locks
                and self._sessions.current(entry.key) is None
            ):
                ways.append((entry, peer))
        if len(ways) > 2:
            ways = self._ground.net.rng.sample(ways, 2)
        return min(ways, key=lambda way: (len(self._steering.flows_of(way[0].key)), way[1].link.load), default=None)

    def reach(self, key: Key) -> int:
        """How many agents could serve the connector's clients now: those here, and those of other hubs to which there
        is a way."""
        tenant, connector = key
        here = sum(one.serves(tenant, connector) for one in self._sessions.routed(key))
        if not (self._ways.active and self._guided):
            return here
        return here + sum(
            (peer := self._ways.peer(entry.owner)) is not None
            and not peer.draining
            and entry.key not in self._ground.locks
            and self._sessions.current(entry.key) is None
            for entry in self._registry.view.routes(*key)
        )

    # answers

    def refused(self, flow: ClientFlow, reason: Reason) -> bool:
        """The open was refused, and nothing of the flow acknowledged. False ends the flow; see rule 3."""
        info = flow.info
        # The agent may have it already. Who has dialled says that it has not, if it is asked without a hub between us:
        # by way of one that may be said of an open before, behind which the agent takes this one, or be the hub's word.
        if info.sends > 1 and (info.remote or reason not in DIALLED):
            if reason in NOT_HERE:  # wait for where it is now
                self._steering.answered(flow)
                flow.detach()
                self._ask_again_later(flow, None)
                return True
            if reason is Reason.OVERLOADED and self.hold.patient(flow):
                self._steering.wait(flow)
                return True
            return False
        if reason in NOT_HERE:
            refused = (info.agent_key, info.epoch)  # wherever the agent is now it may be asked
            info.refused |= {refused}
            if not info.refusals:
                self._ground.net.spawn(self._registry.get_owner(info.agent_key), "refresh")
            self._ask_again_later(flow, refused)
        else:
            info.tried |= {info.agent_key}
        agent = info.agent_key
        self._steering.release(flow)
        flow.reopen()
        if reason is not Reason.OVERLOADED:
            self._steering.give_turns(agent, info.connector, 1)
        if self.dispatch(flow):
            self._ground.stats.flows_retried += 1
            return True
        if reason is Reason.OVERLOADED:  # another hub's agent has as many opens in progress as it may
            info.tried = EMPTY
        return (reason in NOT_HERE or reason is Reason.OVERLOADED) and (self._passes(flow) or self.hold.add(flow))

    def _ask_again_later(self, flow: ClientFlow, refused: tuple[str, int] | None) -> None:
        pause = ASK_AGAIN * 2 ** min(flow.info.refusals, ASK_DOUBLES)
        flow.info.refusals += 1
        self._ground.net.call_later(pause, self._ask_again, flow, refused)

    def _ask_again(self, flow: ClientFlow, refused: tuple[str, int] | None) -> None:
        """What was `refused` may be tried again; a flow that is still without a way tries it now."""
        info = flow.info
        if refused is not None:
            info.refused -= {refused}
        if flow.closed:
            return
        if info.agent_key:
            if flow.detached_at >= 0 and not flow.attached:
                self._steering.seek(flow, self._ground.clock())
        elif info.key in self.hold:
            self.hold.release(info.key, self.dispatch)

    def _hold_or_refuse(self, flow: ClientFlow) -> None:
        """While the connector's agents are reconnecting, or have all the opens they may have in progress, a client
        waits, in a bounded queue for a bounded time."""
        if self._passes(flow):
            return
        hopeful = self._hopeful(flow.info.key)
        if hopeful and self.hold.add(flow):
            return
        locked = self._barred.get(flow.info.key, "") in self._ground.locks
        self._refuse(flow, Reason.OVERLOADED if hopeful else Reason.AGENT_LOCKED if locked else Reason.NO_AGENT)

    def _passes(self, flow: ClientFlow) -> bool:
        """Whether a successor gets the flow, which has no way here."""
        giving = self._ground.giving
        return giving is not None and giving.passes(flow)

    def _hopeful(self, key: Key) -> bool:
        ground, now = self._ground, self._ground.clock()
        if now - ground.started_at < STARTUP_HOLD or ground.taking is not None:  # agents come over, one by one
            return True
        lost_at = self._departed.get(key)
        if lost_at is not None and now - lost_at < ground.config.flow.grace_sec:
            return True
        if self._sessions.served(*key):
            return True
        # of a view that Redis has never completed nobody can say who is missing in it
        served = self._served_elsewhere[key] > 0 or not self._registry.view.complete
        return ground.mode == "active" and self._guided and served  # a mesh that is not open yet will be

    def _refuse(self, flow: ClientFlow, reason: Reason) -> None:
        flow.info.counts.opens_refused[reason.label] += 1
        flow.reset(reason)

    # agents come and go

    def comes(self, key: Key) -> None:
        """There is an agent for the connector."""
        if self._guided or self._sessions.served(*key):  # otherwise nobody can reach it yet
            self._departed.pop(key, None)
        self._barred.pop(key, None)
        if key in self.hold:
            self.hold.release(key, self.dispatch)

    def goes(self, key: Key) -> None:
        """There is no agent for the connector here any more; clients are held in the hope that one comes back."""
        self._departed[key] = self._ground.clock()
        while len(self._departed) > ROUTE_MEMORY:
            del self._departed[next(iter(self._departed))]

    def departed(self) -> list[tuple[str | None, str, float]]:
        """Connectors whose last agent was lost, and when: for a successor."""
        return [(tenant, connector, at) for (tenant, connector), at in self._departed.items()]

    def departs(self, departed: list[tuple[str | None, str, float]]) -> None:
        """As a predecessor has seen it."""
        self._departed.update({(tenant, connector): at for tenant, connector, at in departed})

    def barred(self, key: Key, agent: str) -> None:
        """The connector's last agent is locked out: nobody is held for it."""
        self._departed.pop(key, None)
        self._barred[key] = agent
        while len(self._barred) > ROUTE_MEMORY:
            del self._barred[next(iter(self._barred))]

    def changed(self, keys: frozenset[str]) -> None:
        """The registry's view of these agents has changed."""
        view = self._registry.view
        for key in sorted(keys):
            entry = view.agent(key)
            before = self._elsewhere.pop(key, [])
            self._served_elsewhere.subtract(before)
            after: list[Key] = []
            if entry is not None and entry.owner and entry.owner != self._ground.replica_id:
                self._steering.follow(entry)
                if not entry.draining:
                    after = [(entry.tenant, connector) for connector in sorted(entry.connectors)]
                    self._elsewhere[key] = after
                    self._served_elsewhere.update(after)
            for gone in before:
                if self._served_elsewhere[gone] <= 0:
                    del self._served_elsewhere[gone]
                    if key in self._ground.locks:
                        self.barred(gone, key)
                    else:
                        self.goes(gone)
            for here in after:
                self.comes(here)

    def peer_up(self, peer: Peer) -> None:
        """Flows that have no way, and whose agent is owned there, go on; so do clients that wait."""
        now = self._ground.clock()
        for flow in list(self._ground.flows.values()):
            if flow.detached_at >= 0 and not flow.attached:
                self._steering.seek(flow, now)
        for routes in list(self._elsewhere.values()):
            for key in routes:
                if key in self.hold:
                    self.hold.release(key, self.dispatch)

    # time

    def tick(self, now: float) -> None:
        """Looks for ways for those who wait, and ends those who have waited for too long."""
        self._steering.tick()
        self.hold.tick(now, self.dispatch, lambda flow: self._refuse(flow, Reason.HOLD_TIMEOUT))

    def look_after(self, flow: ClientFlow, now: float) -> None:
        """The timers of one flow, about twice a second."""
        reason = flow.check(now, flow.info.timeouts)
        if reason is Reason.STALLED:  # the link's fault: it is cut, and its flows resume on the next
            if flow.attached and not flow.path.epoch:
                flow.detach()  # no agent may end a link between hubs: this flow alone is asked for anew
            elif flow.attached:
                flow.path.fail(reason, "bytes were sent and not acknowledged")
        elif reason is not None:
            flow.reset(reason)
        elif flow.detached_at >= 0:
            if self._passes(flow):
                return
            if self._forgotten(flow, now):
                flow.reset(Reason.LINK_LOST)
            elif self._ways.active and now - flow.info.sought_at >= SEEK_EVERY and now - flow.detached_at >= SEEK_EVERY:
                self._steering.seek(flow, now)

    def _forgotten(self, flow: ClientFlow, now: float) -> bool:
        """The agent is here, in the same process, and has not asked for this flow: it has it no longer."""
        session = self._sessions.current(flow.info.agent_key)
        return (
            session is not None
            and not flow.opening
            and not flow.attached
            and session.instance == flow.info.instance
            and now >= session.resuming_until
        )
