"""The agent's tunnels: one to the hub that owns it, and a warm standby to another hub, that takes over.

Losing the owner costs a claim then, not a reconnect: the standby is dialled, authenticated and known to its hub, and the
claim leaves in the callback that brings the news. A hub that drains says GOAWAY; then the claim goes first, and the old
tunnel is closed when the new epoch is there, so that nothing waits meanwhile.

Claims, in rules:
 1. One claim at a time. It ends by an epoch or with its tunnel.
 2. Each HELLO that claims names a `last_epoch` above that of every earlier one, granted or not. A hub grants above what it
    is told; so two hubs that both have lost the registry, and both answer us, never grant the same epoch.
 3. `superseded` on the owner's tunnel means another process under our id, and then the standby is not claimed: two clones
    with two hubs each would take the agent from each other as fast as the network allows. It is no sign of a clone while a
    claim of ours is on its way, or shortly after one was given up, for the hub may have carried it out late.
 4. Attempts are spread by full jitter, the first too, but for the claim over a standby: that costs the hub no handshake.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from ncfast import log
from ncfast.dialer import DialError, dial
from ncfast.errors import Reason
from ncfast.tunnel import AgentTunnel, TunnelState

if TYPE_CHECKING:
    from ncfast.agent import Agent

_log = log.get("agent")

CONFLICT_DELAY = 30.0          # seconds to wait at least when another process took over under our id
CLAIM_TIMEOUT = 3.0            # seconds for the answer to a claim over a standby: a registry that is away costs the hub less than 1
CLAIM_MEMORY = 10.0            # seconds in which a hub may still carry out a claim that we have given up
SETTLE = 3.0                   # bound of the pause before a standby is sought, so that the agents of a lost hub do not all dial at once
STEADY = 5.0                   # a standby that stood so many seconds was well, and the next is sought without a longer pause
LAST_CLAIM = 2**53 - 1         # the largest that HELLO can say


class Tunnels:
    """Keeps `owner` and `standby`. Decisions fall between two callbacks, in `granted`, `standing`, `leaving` and `ended`,
    which the tunnels call; the two tasks only dial."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.net = agent.net
        self.config = agent.config
        self.owner: AgentTunnel | None = None          # OWNER
        self.claimant: AgentTunnel | None = None       # CLAIMING
        self.standby: AgentTunnel | None = None        # STANDBY
        self.greeting: AgentTunnel | None = None       # GREETING
        self.last_epoch = 0                            # the highest ever granted
        self._said = -1                                # the highest that a claim has named
        self._next_hub = 0
        self._lost_at: float | None = None             # when the owner was lost, until there is another
        self._given_up_at = float("-inf")              # when a claim ended without an answer
        self._conflict_until = float("-inf")
        self._closed = False
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # life

    def start(self) -> None:
        """Begins to dial."""
        self._tasks = [self.net.spawn(self._keep_owner(), "tunnel"), self.net.spawn(self._keep_standby(), "standby")]

    def close(self, detail: str) -> None:
        """Ends every tunnel, and claims no more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for tunnel in self.all():
            tunnel.close(detail)

    def all(self) -> list[AgentTunnel]:
        """Those that have said HELLO, the owner's first."""
        return [one for one in (self.owner, self.claimant, self.standby, self.greeting) if one is not None]

    # claims

    def next_claim(self) -> int:
        """The `last_epoch` of the next HELLO that claims: rule 2."""
        self._said = min(max(self.last_epoch, self._said + 1), LAST_CLAIM)
        return self._said

    def _claim(self, tunnel: AgentTunnel, timeout: float) -> None:
        if tunnel is self.standby:
            self.standby = None
        self.claimant = tunnel
        tunnel.claim(timeout)

    def _take_over(self) -> None:
        """Claims over the standby if there is a reason to: no owner, or one that leaves."""
        if self.standby is None or self.claimant is not None or self._closed:
            return
        if self.owner is None:
            if self.net.clock() >= self._conflict_until:
                self._claim(self.standby, CLAIM_TIMEOUT)
        elif self.owner.draining and not self.standby.draining:
            self._claim(self.standby, CLAIM_TIMEOUT)

    # what tunnels tell

    def granted(self, tunnel: AgentTunnel) -> None:
        """The tunnel's hub owns the agent from now on; the flows move there."""
        agent = self.agent
        before, self.owner, self.claimant = self.owner, tunnel, None
        lost_at, self._lost_at = self._lost_at, None
        self.last_epoch = tunnel.epoch
        self._next_hub = self.config.hubs.index(tunnel.url)
        flows = len(agent.flows)
        _log.info("tunnel_up", hub=tunnel.url, agent_id=self.config.agent_id, epoch=tunnel.epoch, session=tunnel.session,
                  replica=tunnel.replica_id, flows=flows)
        if before is not None:
            # first: for what still comes there, a flow that has left would be an unknown one, and the hub would be told so
            before.close("moved to another hub")
            _log.info("moved", hub=tunnel.url, replica=tunnel.replica_id, previous_epoch=before.epoch, epoch=tunnel.epoch, flows=flows)
        elif lost_at is not None and tunnel.stood:
            _log.info("takeover", hub=tunnel.url, replica=tunnel.replica_id, epoch=tunnel.epoch, flows=flows,
                      outage_ms=round((self.net.clock() - lost_at) * 1000, 3))
        if self.standby is not None and self.standby.replica_id == tunnel.replica_id:
            self.standby.close("the owner is on the same hub")
        for flow in list(agent.flows.values()):
            tunnel.carry(flow)
        self._changed.set()

    def standing(self, tunnel: AgentTunnel) -> None:
        """The tunnel's hub has answered, and would take a claim."""
        self.greeting = None
        if any(other is not None and other.replica_id == tunnel.replica_id for other in (self.owner, self.standby)):
            tunnel.close("this hub has a tunnel of ours")
        else:
            before, self.standby = self.standby, tunnel
            _log.info("standby_up", hub=tunnel.url, replica=tunnel.replica_id, session=tunnel.session)
            if before is not None:
                before.close("another standby has taken its place")
            self._take_over()
        self._changed.set()

    def leaving(self, tunnel: AgentTunnel) -> None:
        """The tunnel's hub drains."""
        self._take_over()
        self._changed.set()

    def ended(self, tunnel: AgentTunnel, state: TunnelState, lasted: float, reason: Reason, detail: str) -> None:
        """The tunnel is gone, after `lasted` seconds in `state`."""
        now = self.net.clock()
        if tunnel is self.standby:
            self.standby = None
        elif tunnel is self.greeting:
            self.greeting = None
        elif tunnel is self.claimant:
            self.claimant = None
            self._given_up_at = now
            self._conflict(reason, now)
        elif tunnel is self.owner:
            self.owner = None
            self._lost_at = now
            self._next_hub += reason is Reason.GOING_AWAY
            if self.claimant is None and now - self._given_up_at >= CLAIM_MEMORY:
                self._conflict(reason, now)
        self._tell(tunnel, state, reason, detail)
        self._take_over()
        self._changed.set()

    def _conflict(self, reason: Reason, now: float) -> None:
        if reason is Reason.SUPERSEDED and self.owner is None:
            self._conflict_until = now + min(CONFLICT_DELAY, self.config.reconnect.max_sec)

    def _tell(self, tunnel: AgentTunnel, state: TunnelState, reason: Reason, detail: str) -> None:
        ours = reason is Reason.GOING_AWAY and self._closed
        if state is TunnelState.STANDBY or state is TunnelState.GREETING:
            _log.info("standby_down", hub=tunnel.url, replica=tunnel.replica_id, reason=reason.label, detail=detail)
        elif state is not TunnelState.DIALLED:
            (_log.info if ours else _log.warning)("tunnel_down", hub=tunnel.url, reason=reason.label, detail=detail, flows=len(self.agent.flows))
