"""Puts our clients' flows on ways, and off them: which flow goes to which agent, by which tunnel or link, under which
epoch.

The rules of losing a way are those of `ncfast.hub.routing`; this is rules 1 and 2 at work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ncfast.core.errors import Reason
from ncfast.hub.client import ClientFlow
from ncfast.hub.ground import Ground
from ncfast.hub.opens import Opens
from ncfast.hub.pending import PendingOpens
from ncfast.hub.session import AgentSession
from ncfast.hub.sessions import Sessions
from ncfast.hub.ways import Ways
from ncfast.registry import AgentEntry, DistributedRegistry

if TYPE_CHECKING:
    from ncfast.mesh.peer import Peer

    Way = AgentSession | Peer  # the tunnel of an agent that is owned here, or the link to the hub that owns it

ASKS = 0.5  # seconds for an agent to ask for a flow that was passed, before we do


class Steering(Opens):
    """The flows of our clients by agent, each on its way, and again when that is lost."""

    def __init__(
        self, ground: Ground, sessions: Sessions, registry: DistributedRegistry, ways: Ways, pending: PendingOpens
    ) -> None:
        super().__init__(ground, pending)
        self._sessions = sessions
        self._registry = registry
        self._ways = ways

    def release(self, flow: ClientFlow) -> None:
        """The flow is no agent's any more."""
        info = flow.info
        self.answered(flow)
        self._leave(flow)
        info.session = info.peer = None
        info.agent_key = info.owner = ""
        info.remote = False
        info.epoch = info.sends = 0

    def adopt(self, flow: ClientFlow) -> None:
        """The flow, which another process of this hub has passed, is its agent's."""
        self._flows_of.setdefault(flow.info.agent_key, {})[flow] = None

    def passes(self, flow: ClientFlow) -> None:
        """The flow is another process's from now on."""
        self.answered(flow)
        self._leave(flow)

    def return_to_way(self, flow: ClientFlow) -> None:
        """Rules 1 and 2 for a flow that was passed: wherever its agent is it is asked for, or opened again."""
        info = flow.info
        session = self._sessions.current(info.agent_key)
        if session is None:
            self.seek(flow, self._ground.clock())
        elif info.instance != session.instance:
            flow.reset(Reason.AGENT_RESTARTED)
        elif flow.opening:
            self._send_again(flow, session, session.epoch)
        else:
            session.resuming()
            self._ground.net.call_later(ASKS, self._ask, flow, session)

    def _ask(self, flow: ClientFlow, session: AgentSession) -> None:
        """The agent, which asks for all its flows when it claims, may have been told to wait for this one: then we
        ask."""
        lost = not flow.closed and not flow.attached
        if lost and self._sessions.current(flow.info.agent_key) is session and session.epoch >= flow.info.epoch:
            self.use(flow, session, session.epoch)
            flow.attach(session.link, resumed=False, epoch=session.epoch)

    # opening again, in turn

    def wait(self, flow: ClientFlow) -> None:
        """The agent's connector has as many opens in progress as it may: this one has no way until its turn comes."""
        self.answered(flow)
        flow.detach()
        self._waiting.setdefault((flow.info.agent_key, flow.info.connector), {})[flow] = None

    def _waits_no_more(self, flow: ClientFlow) -> None:
        key = (flow.info.agent_key, flow.info.connector)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.pop(flow, None)
            if not waiting:
                del self._waiting[key]

    def give_turns(self, agent: str, connector: str, most: int) -> int:
        """Opens those of the connector again that have waited for longest, as far as the agent may have more; how many,
        at most `most`."""
        given = 0
        if not self._waiting:
            return given
        for flow in list(self._waiting.get((agent, connector), ())):
            if given == most or self._pending.full(agent, connector):
                break
            self._waits_no_more(flow)
            if flow.opening and not flow.attached:  # the agent may have asked for it meanwhile
                self._open_again(flow)
                if not flow.attached:
                    self.wait(flow)  # there is no way
                    break
                given += 1
        return given

    def tick(self) -> None:
        """Looks for room of which no answer to us has told: what other hubs' clients, or none, have left."""
        for agent, connector in list(self._waiting):
            self.give_turns(agent, connector, self._pending.most)

    def _open_again(self, flow: ClientFlow) -> None:
        """Rule 2, by whichever way there is to the agent now; there may be none."""
        session = self._sessions.current(flow.info.agent_key)
        if session is not None:
            self._send_again(flow, session, session.epoch)
        else:
            self.seek(flow, self._ground.clock())

    def _send_again(self, flow: ClientFlow, way: Way, epoch: int, credit: int = 0) -> None:
        if flow.info.counted or not self._pending.full(flow.info.agent_key, flow.info.connector):
            self.send_open(flow, way, epoch, credit)
        else:
            self.wait(flow)

    # ways come and go

    def agent_up(self, session: AgentSession) -> None:
        """The agent is owned here from now on. It asks for its flows itself; what was opening is opened again (rule
        2)."""
        for flow in list(self.flows_of(session.key)):
            info = flow.info
            if info.instance != session.instance:
                flow.reset(Reason.AGENT_RESTARTED)
            elif flow.opening and session.epoch > info.epoch:
                self._send_again(flow, session, session.epoch)

    def agent_lost(self, session: AgentSession) -> None:
        """The tunnel is gone; the flows on it have detached."""
        for flow in self.flows_of(session.key):
            if flow.info.session is session:
                self.answered(flow)
                flow.info.session = None

    def follow(self, entry: AgentEntry) -> None:
        """The agent is another hub's, under an epoch that may be news to its flows here."""
        for flow in list(self.flows_of(entry.key)):
            info = flow.info
            if entry.epoch <= info.epoch:
                continue
            if entry.instance != info.instance:
                flow.reset(Reason.AGENT_RESTARTED)
            elif flow.opening and (peer := self._ways.peer(entry.owner)) is not None:
                self._send_again(flow, peer, entry.epoch, entry.window)

    def peer_lost(self, peer: Peer) -> None:
        """The flows on the link have detached."""
        for flow in self._ground.flows.values():
            if flow.info.peer is peer:
                self.answered(flow)
                flow.info.peer = None

    def seek(self, flow: ClientFlow, now: float) -> None:
        """Opens or resumes by way of the owner that we know of: rules 1 and 2."""
        info = flow.info
        if not info.agent_key or self._sessions.current(info.agent_key) is not None:
            return  # held, or the agent is here and asks itself
        entry = self._registry.view.agent(info.agent_key)
        owner, epoch = info.owner, info.epoch
        if entry is not None and entry.owner and entry.epoch >= epoch:
            if entry.epoch > epoch and entry.instance != info.instance:  # which `follow` is about to be told
                flow.reset(Reason.AGENT_RESTARTED)
                return
            owner, epoch = entry.owner, entry.epoch
        peer = self._ways.peer(owner)
        if peer is None:
            return
        info.sought_at = now
        if flow.opening:
            if not flow.attached and entry is not None and entry.owner == owner:
                self._send_again(flow, peer, epoch, entry.window)
        else:
            self.use(flow, peer, epoch)
            flow.attach(peer.link, resumed=False, epoch=epoch)
