"""From a client's flow to an agent: which one, by which way, and again when that way is lost.

A way is the tunnel of an agent that is owned here, or the mesh link to the hub that owns it. Modes: `off` and `shadow`
take local ways only; `active` prefers them, and otherwise takes the less loaded of two random agents of other hubs
whose link is well (the power of two choices: Mitzenmacher, IEEE TPDS 2001). The registry's cached view says who they
are; no flow waits for the registry.

Losing ways, in rules:
 1. A flow that the agent has accepted is the agent's for good: it is resumed, never opened elsewhere. The agent asks
    for it (M_RESUME) where it claims; we ask for it when a link to its owner comes up, and every `SEEK_EVERY` while it
    has no way.
 2. A flow that is still opening is opened again on the same agent, wherever that is: it may have seen the first open.
 3. A refusal sends the flow to another agent only if no target can have seen a byte of it.
 4. What comes under an older epoch than the flow has seen is stale: it is refused, with the epoch that we know.
"""

from __future__ import annotations

import hmac
from collections import Counter
from typing import TYPE_CHECKING

from ncfast._frames import SECRET_SIZE
from ncfast.core.errors import Reason, RemoteError
from ncfast.core.flow import Flow
from ncfast.core.messages import Open, Sought, Vouch
from ncfast.hub.hold import Hold
from ncfast.hub.listener import ClientInfo
from ncfast.hub.session import AgentSession
from ncfast.hub.sessions import Key
from ncfast.net.socket import SocketEnd
from ncfast.observe import log

if TYPE_CHECKING:
    from ncfast.hub.hub import Hub
    from ncfast.mesh import Peer
    from ncfast.registry import AgentEntry

_log = log.get("hub")

STARTUP_HOLD = 5.0  # seconds after start in which every agent counts as reconnecting, as after a restart they all are
ROUTE_MEMORY = 4096  # connectors of departed agents remembered, to hold clients for them
SEEK_EVERY = 2.0  # seconds between two attempts of ours to resume a flow that has no way
# seconds before a hub that says not_owner is asked again: the news of a claim may reach us before its own hub;
ASK_AGAIN = 0.0125
# twice as long each time,
ASK_DOUBLES = 7  # this often at most: 1.6 s
NOT_HERE = frozenset(
    {Reason.NOT_OWNER, Reason.STALE_EPOCH}
)  # the hub that was asked does not own the agent (any longer)
DIALLED = frozenset({Reason.TARGET_REFUSED, Reason.TARGET_UNREACHABLE, Reason.TARGET_TIMEOUT, Reason.NO_SUCH_CONNECTOR})


class Router:
    """The hub's clients' flows and their ways."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.hold = Hold(hub.net.clock)
        self.opening: Counter[str] = Counter()  # opens without an answer, by agent; those that we relay as well
        self._flows_of: dict[str, dict[Flow[ClientInfo], None]] = {}  # by agent
        self._departed: dict[Key, float] = {}  # when the last agent of a connector was lost
        self._elsewhere: dict[str, list[Key]] = {}  # what agents of other hubs served when we last looked
        self._served_elsewhere: Counter[Key] = Counter()  # how many of them serve a connector, live or not
        self._flow_number = 0

    # clients

    def client_ready(self, end: SocketEnd, info: ClientInfo) -> None:
        """A client's socket is there: give it a flow and a way."""
        hub = self.hub
        self._flow_number += 1
        cid = hub.instance + self._flow_number.to_bytes(8, "big")
        secret = hub.net.entropy(16)
        client_host, _, client_port = info.client.rpartition(":")
        local = end.transport.get_extra_info("sockname") or ("", 0)
        info.request = Open(
            connector=info.listener.config.connector,
            listener=info.listener.name,
            secret=secret.hex(),
            origin=hub.replica_id,
            client=(client_host, int(client_port or 0), local[0], local[1]),
        )
        flow = Flow(hub.context, cid, secret, info.request.pack(), info)
        hub.flows[cid] = flow
        hub.stats.flows_opened += 1
        hub.stats.accepted[info.listener.name] += 1
        end.carry(flow)
        if hub.mode == "shadow":
            self._shadow(info)
        if info.listener.key in self.hold or not self.dispatch(flow):
            self._hold_or_refuse(flow)  # behind those who wait already

    # choosing

    def dispatch(self, flow: Flow[ClientInfo]) -> bool:
        """Sends the open on the best way to an agent that serves it and has not refused it yet. False: there is
        none."""
        info = flow.info
        cap = self.hub.config.limits.pending_opens_per_agent
        local = [
            session
            for session in self.hub.agents.serving(*info.listener.key)
            if self.opening[session.key] < cap and session.key not in info.tried
        ]
        if local:
            least = min(session.load for session in local)
            session = (
                self.hub.net.rng.choice([one for one in local if one.load == least]) if len(local) > 1 else local[0]
            )
            self._open(flow, session.key, session.instance, session, session.epoch)
            return True
        if self.hub.active and (way := self._remote_way(info)) is not None:
            entry, peer = way
            self._open(flow, entry.key, entry.instance, peer, entry.epoch, entry.window)
            return True
        return False

    def _remote_way(self, info: ClientInfo) -> tuple[AgentEntry, Peer] | None:
        hub = self.hub
        if not hub.registry.view.fresh:
            return None
        cap = hub.config.limits.pending_opens_per_agent
        ways = []
        for entry in hub.registry.view.routes(*info.listener.key):
            peer = hub.peer(entry.owner)
            if (
                peer is not None
                and not peer.draining
                and self.opening[entry.key] < cap
                and entry.key not in info.tried
                and (entry.key, entry.epoch) not in info.refused
                and hub.agents.current(entry.key) is None
            ):
                ways.append((entry, peer))
        if len(ways) > 2:
            ways = hub.net.rng.sample(ways, 2)
        return min(ways, key=lambda way: (len(self._flows_of.get(way[0].key, ())), way[1].link.load), default=None)

    def _shadow(self, info: ClientInfo) -> None:
        """What `active` would have decided, and whether it agrees with what local routing does. Only looks."""
        hub = self.hub
        local = hub.agents.serving(*info.listener.key)
        known = (
            {entry.key: entry for entry in hub.registry.view.routes(*info.listener.key)}
            if hub.registry.view.fresh
            else {}
        )
        if local:  # the same, if the cluster knows our agents as we do
            agrees = all(
                one.key in known and known[one.key].owner == hub.replica_id and known[one.key].epoch == one.epoch
                for one in local
            )
            decision = "local"
        else:
            decision = "mesh" if self._remote_way(info) is not None else "none"
            agrees = decision == "none"
        hub.stats.shadow_decisions[decision, "yes" if agrees else "no"] += 1

    # opening

    def _open(
        self, flow: Flow[ClientInfo], key: str, instance: str, way: AgentSession | Peer, epoch: int, credit: int = 0
    ) -> None:
        info = flow.info
        info.agent_key = key
        info.instance = instance
        info.tried.add(key)
        self._flows_of.setdefault(key, {})[flow] = None
        self._send_open(flow, way, epoch, credit)

    def _send_open(self, flow: Flow[ClientInfo], way: AgentSession | Peer, epoch: int, credit: int = 0) -> None:
        """M_OPEN by a tunnel, or by the link to the owner; `credit` is what the agent gives then."""
        info = flow.info
        info.sends += 1
        self._use(flow, way, epoch)
        if not info.counted:
            info.counted = True
            self.opening[info.agent_key] += 1
        flow.attach(way.link, resumed=True, epoch=epoch, credit=credit)

    def _use(self, flow: Flow[ClientInfo], way: AgentSession | Peer, epoch: int) -> None:
        """Notes by which way the flow goes from now on, and lets its M_OPEN and M_RESUME say what they must there."""
        info = flow.info
        session, peer = (way, None) if isinstance(way, AgentSession) else (None, way)
        owner = peer.replica_id if peer is not None else self.hub.replica_id
        if info.owner and info.owner != owner:
            self.hub.stats.failovers += 1
        info.owner = owner
        info.epoch = max(info.epoch, epoch)
        info.session, info.peer = session, peer
        if peer is None:
            if flow.sought is not None:
                flow.direct(info.request.pack())
        else:
            tenant, _, agent = info.agent_key.partition("/")
            flow.direct(
                info.request.model_copy(update={"agent": agent, "tenant": tenant or None}).pack(),
                Sought(agent=agent, tenant=tenant or None, connector=info.request.connector).pack(),
            )

    def _answered(self, flow: Flow[ClientInfo]) -> None:
        """The open is no longer in progress."""
        info = flow.info
        if info.counted:
            info.counted = False
            self.opening[info.agent_key] -= 1
            if not self.opening[info.agent_key]:
                del self.opening[info.agent_key]

    def opened(self, flow: Flow[ClientInfo]) -> None:
        """The target is connected."""
        info = flow.info
        self._answered(flow)
        info.opened = True
        self.hub.stats.flows_by_path[info.path] += 1
        self.hub.stats.open_latency.observe(self.hub.net.clock() - info.accepted_at)
        if info.listener.key in self.hold:
            self.hold.release(info.listener.key, self.dispatch)

    def refused(self, flow: Flow[ClientInfo], reason: Reason) -> bool:
        """The open was refused, and nothing of the flow acknowledged. False ends the flow; see rule 3."""
        info = flow.info
        hub = self.hub
        if info.sends > 1 and reason not in DIALLED:
            if reason not in NOT_HERE:
                return False
            self._answered(flow)  # the agent may have it already: wait for where it is now
            flow.detach()
            self._ask_again_later(flow, None)
            return True
        self._answered(flow)
        self._leave_agent(flow)
        if reason in NOT_HERE:
            info.tried.discard(info.agent_key)  # wherever it is now it may be asked
            refused = (info.agent_key, info.epoch)
            info.refused.add(refused)
            if not info.refusals:
                hub.net.spawn(hub.registry.get_owner(info.agent_key), "refresh")
            self._ask_again_later(flow, refused)
        info.session = info.peer = None
        info.agent_key = info.owner = ""
        info.epoch = info.sends = 0
        flow.reopen()
        if self.dispatch(flow):
            hub.stats.flows_retried += 1
            return True
        if reason is Reason.OVERLOADED:  # another hub's agent has as many opens in progress as it may
            info.tried.clear()
        return (reason in NOT_HERE or reason is Reason.OVERLOADED) and self.hold.add(flow)

    def _ask_again_later(self, flow: Flow[ClientInfo], refused: tuple[str, int] | None) -> None:
        pause = ASK_AGAIN * 2 ** min(flow.info.refusals, ASK_DOUBLES)
        flow.info.refusals += 1
        self.hub.net.call_later(pause, self._ask_again, flow, refused)

    def _ask_again(self, flow: Flow[ClientInfo], refused: tuple[str, int] | None) -> None:
        """What was `refused` may be tried again; a flow that is still without a way tries it now."""
        info = flow.info
        if refused is not None:
            info.refused.discard(refused)
        if flow.closed:
            return
        if info.agent_key:
            if flow.detached_at >= 0 and not flow.attached:
                self._seek(flow, self.hub.net.clock())
        elif info.listener.key in self.hold:
            self.hold.release(info.listener.key, self.dispatch)

    def _hold_or_refuse(self, flow: Flow[ClientInfo]) -> None:
        """While the connector's agents are reconnecting, or have all the opens they may have in progress, a client
        waits, in a bounded queue for a bounded time."""
        listener = flow.info.listener
        hopeful = self._hopeful(listener.key)
        if hopeful and self.hold.add(flow):
            return
        self._refuse(flow, Reason.OVERLOADED if hopeful else Reason.NO_AGENT)

    def _hopeful(self, key: Key) -> bool:
        hub, now = self.hub, self.hub.net.clock()
        lost_at = self._departed.get(key)
        if (lost_at is not None and now - lost_at < hub.config.flow.grace_sec) or now - hub.started_at < STARTUP_HOLD:
            return True
        return bool(hub.agents.serving(*key)) or (
            hub.active and hub.registry.view.fresh and self._served_elsewhere[key] > 0
        )

    def _refuse(self, flow: Flow[ClientInfo], reason: Reason) -> None:
        self.hub.stats.opens_refused[reason.label] += 1
        flow.reset(reason)

    # agents come and go

    def comes(self, key: Key) -> None:
        """There is an agent for the connector."""
        if self.hub.registry.view.fresh or self.hub.agents.serving(*key):  # otherwise nobody can reach it yet
            self._departed.pop(key, None)
        if key in self.hold:
            self.hold.release(key, self.dispatch)

    def goes(self, key: Key) -> None:
        """There is no agent for the connector here any more; clients are held in the hope that one comes back."""
        self._departed[key] = self.hub.net.clock()
        while len(self._departed) > ROUTE_MEMORY:
            del self._departed[next(iter(self._departed))]

    def agent_up(self, session: AgentSession) -> None:
        """The agent is owned here from now on. It asks for its flows itself; what was opening is opened again (rule
        2)."""
        for flow in list(self._flows_of.get(session.key, ())):
            info = flow.info
            if info.instance != session.instance:
                flow.reset(Reason.AGENT_RESTARTED)
            elif flow.opening and session.epoch > info.epoch:
                self._send_open(flow, session, session.epoch)

    def agent_lost(self, session: AgentSession) -> None:
        """The tunnel is gone; the flows on it have detached."""
        for flow in self._flows_of.get(session.key, ()):
            if flow.info.session is session:
                self._answered(flow)
                flow.info.session = None

    def awaits(self, key: str) -> bool:
        """Whether flows of ours wait for this agent."""
        return key in self._flows_of

    def changed(self, keys: frozenset[str]) -> None:
        """The registry's view of these agents has changed."""
        view = self.hub.registry.view
        for key in sorted(keys):
            entry = view.agent(key)
            before = self._elsewhere.pop(key, [])
            self._served_elsewhere.subtract(before)
            after: list[Key] = []
            if entry is not None and entry.owner and entry.owner != self.hub.replica_id:
                self._follow(entry)
                if not entry.draining:
                    after = [(entry.tenant, connector) for connector in sorted(entry.connectors)]
                    self._elsewhere[key] = after
                    self._served_elsewhere.update(after)
            for gone in before:
                if self._served_elsewhere[gone] <= 0:
                    del self._served_elsewhere[gone]
                    self.goes(gone)
            for here in after:
                self.comes(here)

    def _follow(self, entry: AgentEntry) -> None:
        """The agent is another hub's, under an epoch that is news to its flows here."""
        for flow in list(self._flows_of.get(entry.key, ())):
            info = flow.info
            if entry.epoch <= info.epoch:
                continue
            if entry.instance != info.instance:
                flow.reset(Reason.AGENT_RESTARTED)
            elif flow.opening and (peer := self.hub.peer(entry.owner)) is not None:
                self._send_open(flow, peer, entry.epoch, entry.window)

    # mesh links come and go

    def peer_up(self, peer: Peer) -> None:
        """Flows that have no way, and whose agent is owned there, go on."""
        now = self.hub.net.clock()
        for flow in list(self.hub.flows.values()):
            if flow.detached_at >= 0 and not flow.attached:
                self._seek(flow, now)
        for routes in list(self._elsewhere.values()):
            for key in routes:
                if key in self.hold:
                    self.hold.release(key, self.dispatch)

    def peer_lost(self, peer: Peer) -> None:
        """The flows on the link have detached."""
        for flow in self.hub.flows.values():
            if flow.info.peer is peer:
                self._answered(flow)
                flow.info.peer = None

    def _seek(self, flow: Flow[ClientInfo], now: float) -> None:
        """Rules 1 and 2: opens or resumes by way of the owner that we know of."""
        hub, info = self.hub, flow.info
        if not info.agent_key or hub.agents.current(info.agent_key) is not None:
            return  # held, or the agent is here and asks itself
        entry = hub.registry.view.agent(info.agent_key)
        owner, epoch = info.owner, info.epoch
        if entry is not None and entry.owner and entry.epoch >= epoch:
            owner, epoch = entry.owner, entry.epoch
        peer = hub.peer(owner)
        if peer is None:
            return
        info.sought_at = now
        if flow.opening:
            if not flow.attached and entry is not None and entry.owner == owner:
                self._send_open(flow, peer, epoch, entry.window)
        else:
            self._use(flow, peer, epoch)
            flow.attach(peer.link, resumed=False, epoch=epoch)

    # resuming

    def resume_local(self, flow: Flow[ClientInfo], session: AgentSession, secret: bytes, ack: int, limit: int) -> bool:
        """An agent that is owned here asks for a flow. False: it is over."""
        info, link = flow.info, session.link
        if not self._may_resume(flow, session.key, session.instance, secret):
            log.security("resume_denied", agent_id=session.agent_id, remote=session.remote)
            if flow.path is link:
                flow.reset(
                    Reason.RESUME_DENIED
                )  # its own agent has ended it by this, and would leave the bytes unanswered
            else:
                link.refuse(flow.cid, Reason.RESUME_DENIED)
            return True
        if not session.identity.allows(info.listener.config.connector):
            log.security(
                "scope_denied",
                agent_id=session.agent_id,
                connector=info.listener.config.connector,
                remote=session.remote,
            )
            flow.reset(Reason.SCOPE_DENIED)
            link.refuse(flow.cid, Reason.SCOPE_DENIED)
            return True
        if session.epoch < info.epoch:
            self.hub.epochs_refused += 1
            link.tell_detached(flow.cid, session.epoch, Reason.STALE_EPOCH, info.epoch)
            return True
        return self._resume(flow, session, ack, limit, session.epoch)

    def resume_by_mesh(self, peer: Peer, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> bool:
        """The hub that owns the agent asks for a flow on its behalf. False: there is no such flow."""
        flow = self.hub.flows.get(cid)
        if flow is None:
            return False
        info, link = flow.info, peer.link
        try:
            vouch: Vouch = Vouch.unpack(payload[SECRET_SIZE:])
        except RemoteError as exc:
            link.fail(exc.reason, exc.detail)
            return True
        if not self._may_resume(flow, vouch.key, vouch.instance, payload[:SECRET_SIZE]):
            log.security("resume_denied", agent_id=vouch.agent, peer=peer.replica_id)
            link.refuse(cid, Reason.RESUME_DENIED, epoch)
            return True
        newest = max(info.epoch, self._epoch_elsewhere(info.agent_key, peer.replica_id))
        if epoch < newest or (epoch == info.epoch and info.owner != peer.replica_id):
            self.hub.epochs_refused += 1
            link.tell_detached(cid, epoch, Reason.STALE_EPOCH, newest)
            return True
        return self._resume(flow, peer, ack, limit, epoch)

    def _epoch_elsewhere(self, key: str, owner: str) -> int:
        """The epoch under which somebody else than `owner` holds the agent, as far as we know."""
        session = self.hub.agents.current(key)
        entry = self.hub.registry.view.agent(key)
        return max(
            session.epoch if session is not None else 0,
            entry.epoch if entry is not None and entry.owner not in ("", owner) else 0,
        )

    def _may_resume(self, flow: Flow[ClientInfo], key: str, instance: str, secret: bytes) -> bool:
        info = flow.info
        return info.agent_key == key and info.instance == instance and hmac.compare_digest(secret, flow.secret)

    def _resume(self, flow: Flow[ClientInfo], way: AgentSession | Peer, ack: int, limit: int, epoch: int) -> bool:
        link = way.link
        self._use(flow, way, epoch)
        flow.resume(link, ack, limit, True, epoch)
        if flow.closed:
            return False  # that was all it waited for: "unknown" tells the agent to end, too
        return True

    def stale(self, peer: Peer, cid: bytes, newest: int) -> None:
        """The owner has the agent under a later epoch than we said: ask again under that."""
        flow = self.hub.flows.get(cid)
        if flow is not None and not flow.closed and newest > flow.info.epoch and not flow.attached:
            info = flow.info
            self._use(flow, peer, newest)
            if not flow.opening:
                flow.attach(peer.link, resumed=False, epoch=newest)
            info.sought_at = self.hub.net.clock()

    # the end, and time

    def closed(self, flow: Flow[ClientInfo]) -> None:
        """The flow has left the hub."""
        self._answered(flow)
        self._leave_agent(flow)

    def _leave_agent(self, flow: Flow[ClientInfo]) -> None:
        flows = self._flows_of.get(flow.info.agent_key)
        if flows is not None:
            flows.pop(flow, None)
            if not flows:
                del self._flows_of[flow.info.agent_key]

    def tick(self, now: float) -> None:
        """Looks for ways for those who wait, and ends those who have waited for too long."""
        self.hold.tick(now, self.dispatch, lambda flow: self._refuse(flow, Reason.HOLD_TIMEOUT))

    def look_after(self, flow: Flow[ClientInfo], now: float) -> None:
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
            if self._forgotten(flow, now):
                flow.reset(Reason.LINK_LOST)
            elif self.hub.active and now - flow.info.sought_at >= SEEK_EVERY and now - flow.detached_at >= SEEK_EVERY:
                self._seek(flow, now)

    def _forgotten(self, flow: Flow[ClientInfo], now: float) -> bool:
        """The agent is here, in the same process, and has not asked for this flow: it has it no longer."""
        session = self.hub.agents.current(flow.info.agent_key)
        return (
            session is not None
            and not flow.opening
            and not flow.attached
            and session.instance == flow.info.instance
            and now >= session.resuming_until
        )
