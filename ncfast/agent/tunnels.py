"""The agent's tunnels: one to the hub that owns it, and a warm standby to another hub, that takes over.

Losing the owner costs a claim then, not a reconnect: the standby is dialled, authenticated and known to its hub, and
the claim leaves in the callback that brings the news. A hub that drains says GOAWAY; then the claim goes first, and the
old tunnel is closed when the new epoch is there, so that nothing waits meanwhile. A standby is sought only where
HELLO_ACK says that the hub is in a cluster, and kept only if another hub than the owner's has answered: one URL may
lead to many hubs, and many to one.

Claims, in rules:
 1. One claim at a time. It ends by an epoch or with its tunnel.
 2. Each HELLO that claims names a `last_epoch` above that of every earlier one, granted or not. A hub grants above what
    it is told; so two hubs that both have lost the registry, and both answer us, never grant the same epoch.
 3. `superseded` on the owner's tunnel means another process under our id, and then the standby is not claimed: two
    clones with two hubs each would take the agent from each other as fast as the network allows. It is no sign of a
    clone while a claim of ours is on its way, or shortly after one was given up, for the hub may have carried it out
    late.
 4. Attempts are spread by full jitter, the first after a loss too; the bound grows with each, until a tunnel has owned
    for `STOOD`: a hub that takes every claim and ends every tunnel is not dialled in a hot loop. Not the first of a
    process, as what starts together does not come up together; nor the claim over a standby: that costs the hub no
    handshake. Until the first dial that somebody answers, be it by a refusal, the bound begins at `SOON`: a hub that is
    started beside us listens in a moment, and a port that nobody listens on costs no hub anything.
 5. A flow's other end that knows of a higher epoch than the owner's tunnel has (M_DETACH, `stale_epoch`) makes us claim
    above it, over the standby or over a new tunnel: on the old epoch that flow would be lost.
 6. A hub that has too many agents may ask us to move to a certain other (MOVE). We claim there when a tunnel to it
    stands, and never give the owner up before. The standby, if that is at a third hub, stays as it is meanwhile. If we
    do not get there within `MOVE_TIME`, or keep no standby, we say that we stay. If it names itself, another process
    is about to take its place: we dial its URL again, whether or not there are others, and claim over that tunnel. The
    one that we leave stays for the flows on it (`ncfast.agent.former`).
 7. A hub that calls our claim a protocol error may not believe the `last_epoch`, which was granted when a registry was
    poisoned, or a clock wrong. Then we forget it, and claim as if we had just started; or we would never get in again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from ncfast.agent.attempts import Attempts
from ncfast.agent.choice import Choice
from ncfast.agent.former import Former
from ncfast.agent.ground import Ground
from ncfast.agent.services import Services
from ncfast.agent.token import OwnToken
from ncfast.agent.tunnel import AgentTunnel, TunnelState
from ncfast.core.epochs import LARGEST, follows
from ncfast.core.errors import Reason
from ncfast.net.backoff import Backoff
from ncfast.observe import log

_log = log.get("agent")

CONFLICT_DELAY = 30.0  # seconds to wait at least when another process took over under our id
CLAIM_TIMEOUT = 3.0  # seconds for the answer to a claim over a standby: an absent registry costs the hub less than 1
CLAIM_MEMORY = 10.0  # seconds in which a hub may still carry out a claim that we have given up
SOON = 0.02  # seconds: bound of the first pause before anybody has answered
SETTLE = 3.0  # bound of the pause before a standby is sought, so that the agents of a lost hub do not all dial at once
MOVE_TIME = 60.0  # seconds for a tunnel to the hub that we are asked to move to: a balancer may take several dials
REDRAW = 600.0  # seconds, to one and a half times as long, after which the standby's hub is drawn anew
STOOD = 10.0  # an owner that stood so many seconds was well: rule 4 begins anew
STEADY = 5.0  # a standby that stood so many seconds was well, and the next is sought without a longer pause
RENEWAL = 5.0  # seconds between two claims that rule 5 makes: a peer's word costs no more than that
SILENT = frozenset(
    {Reason.GOING_AWAY, Reason.KEEPALIVE_TIMEOUT, Reason.STALLED}
)  # the owner's hub would not answer a dial, or not for long


class Tunnels:
    """Keeps `owner` and `standby`. Decisions fall between two callbacks, in `granted`, `standing`, `leaving` and
    `ended`, which the tunnels call; the two tasks only dial."""

    def __init__(self, ground: Ground, services: Services, token: OwnToken) -> None:
        self._ground = ground
        self._services = services
        self._attempts = Attempts(ground, token, self._answered)
        self.net = ground.net
        self.config = ground.config
        self.owner: AgentTunnel | None = None  # OWNER
        self.claimant: AgentTunnel | None = None  # CLAIMING
        self.standby: AgentTunnel | None = None  # STANDBY
        self.greeting: AgentTunnel | None = None  # GREETING
        self._former = Former(ground)
        self.last_epoch = 0  # the highest ever granted
        self._said = -1  # the highest that a claim has named, or that rule 5 has it above
        self._cluster = False  # the last owner's hub has others beside it
        self._choice = Choice(ground.config.hubs, ground.net.rng)
        self._target = ""  # the hub that we are to move to: rule 6
        self._again = ""  # the owner's own, if it is to own us over another tunnel
        self._target_timer: asyncio.TimerHandle | None = None
        self._redrawn = ""  # the URL that a new draw gives the standby
        self._redraw_timer: asyncio.TimerHandle | None = None
        reconnect = ground.config.reconnect
        self._owner_pause = Backoff(ground.net.rng, min(SOON, reconnect.min_sec), reconnect.max_sec)
        self._standby_pause = Backoff(ground.net.rng, SETTLE, reconnect.max_sec)
        self._lost_at: float | None = None  # when the owner was lost, until there is another
        self._given_up_at = float("-inf")  # when a claim ended without an answer
        self._outdone_by = -1  # the highest epoch that a flow's other end knows of
        self._renewed_at = float("-inf")
        self._renewal: asyncio.TimerHandle | None = None
        self._conflict_until = float("-inf")
        self._closed = False
        self.on_granted: Callable[[], object] = lambda: None  # a hub owns us, and the flows have moved there
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # life

    def start(self, ahead: AgentTunnel | None = None) -> None:
        """Begins to dial; over a tunnel that was dialled `ahead`, and has said nothing yet, it claims at once, if that
        leads where an owner is sought first."""
        if ahead is not None and not ahead.link.closed:
            if ahead.url == self._choice.for_owner():
                self._claim(ahead, self.config.reconnect.connect_timeout_sec)
            else:
                ahead.abandon()
        self._tasks = [self.net.spawn(self._keep_owner(), "tunnel"), self.net.spawn(self._keep_standby(), "standby")]
        self._redraw_later()

    def close(self, detail: str) -> None:
        """Ends every tunnel, and claims no more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for timer in (self._renewal, self._target_timer, self._redraw_timer):
            if timer is not None:
                timer.cancel()
        for tunnel in self.all():
            tunnel.close(detail)

    # handed over

    def heritage(self) -> dict[str, Any]:
        """What the process that follows has to know to claim above us, and where."""
        return {"last_epoch": self.last_epoch, "said": self._said, "hub": self.next_hub}

    @property
    def next_hub(self) -> str:
        """The URL at which a process that follows is to claim: a hub that is in no cluster has our flows alone."""
        return self._choice.for_owner() if self.owner is None else self.owner.url

    def inherit(self, last_epoch: int, said: int, url: str) -> None:
        """Of the process before us: rule 2, and where it is owned, whatever a tunnel dialled ahead has come to."""
        self.last_epoch, self._said = last_epoch, said
        self._choice.begin_at(url)

    async def dial_ahead(self, url: str) -> AgentTunnel | None:
        """A tunnel that has said nothing yet, to the hub at `url` if our file names that, to the first otherwise. None
        if there is none now."""
        self._choice.begin_at(url)
        tunnel = AgentTunnel(self._ground, self._services, self, self._choice.for_owner())
        return tunnel if await self._attempts.make(tunnel, "owner", self._owner_pause) else None

    def hold(self) -> None:
        """Nothing is read from the tunnels, and none is dialled or claimed over, until `go_on`, or the end."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for timer in (self._renewal, self._redraw_timer):
            if timer is not None:
                timer.cancel()
        self._renewal = None
        self._former.stop()
        self._settled()
        for tunnel in self.all():
            tunnel.hold()

    def go_on(self) -> None:
        """After `hold`: all is as it was."""
        self._closed = False
        for tunnel in self.all():
            tunnel.go_on()
        self._former.close("what it carried goes by the owner")
        self.start()
        self._take_over()

    def all(self) -> list[AgentTunnel]:
        """Those that have said HELLO, the owner's first."""
        every = (self.owner, self.claimant, self.standby, self.greeting, self._former.tunnel)
        return [one for one in every if one is not None]

    @property
    def wants_standby(self) -> bool:
        """Whether there are other hubs, and one of them is to stand by."""
        return self.config.standby and self._cluster

    # claims

    def next_claim(self) -> int:
        """The `last_epoch` of the next HELLO that claims: rule 2."""
        self._said = min(max(self.last_epoch, self._said + 1), LARGEST)
        return self._said

    @property
    def alone(self) -> bool:
        """Whether no tunnel of ours carries flows."""
        return self.owner is None and self._former.tunnel is None

    def _claim(self, tunnel: AgentTunnel, timeout: float) -> None:
        if tunnel is self.standby:
            self.standby = None
        self.claimant = tunnel
        tunnel.claim(timeout)

    def _take_over(self) -> None:
        """Claims over the standby if there is a reason to: no owner, or one that leaves, has too low an epoch, or has
        asked us to move there."""
        if self.claimant is not None or self._closed:
            return
        if self.owner is None:
            if self.standby is not None and self.net.clock() >= self._conflict_until:
                self._claim(self.standby, CLAIM_TIMEOUT)
        elif self.standby is not None and not self.standby.draining:
            if self.owner.draining or self.owner.stale or self.standby.replica_id == self._target:
                self._claim(self.standby, CLAIM_TIMEOUT)
        elif self.owner.stale:
            self.owner.close("another end of a flow knows of a higher epoch")

    # dialling

    def _wants_owner(self) -> bool:
        """Nothing owns or claims, or the hub that owns wants it over another tunnel."""
        return self.claimant is None and (self.owner is None or bool(self._again))

    def _lacks_standby(self) -> bool:
        return (
            self.config.standby
            and self._cluster
            and self.owner is not None
            and self.claimant is None
            and self.greeting is None
            and (self.standby is None or self.standby.draining or bool(self._target or self._redrawn))
            and not self._ground.stopping.is_set()
        )

    async def _keep_owner(self) -> None:
        """Dials when nothing owns and no standby can take over; the hubs in turn."""
        if not self._ground.counts.granted:  # a claim over a tunnel that was dialled ahead comes to something, or not
            await self._while(lambda: self.claimant is not None)
        if self._wants_owner():
            await self._dial_next()  # at once: rule 4
        while True:
            await self._while(lambda: not self._wants_owner())
            wait = max(self._owner_pause.next(), self._conflict_until - self.net.clock())
            if not await self._while(self._wants_owner, wait) or self.net.clock() < self._conflict_until:
                continue
            if self.owner is not None:
                await self._dial(self.owner.url, "owner", self._owner_pause)
            elif self.standby is not None:  # spared in a conflict that is over
                self._take_over()
            else:
                await self._dial_next()

    async def _dial_next(self) -> None:
        url = self._choice.for_owner()
        if not await self._dial(url, "owner", self._owner_pause):
            self._choice.leave(url)

    async def _keep_standby(self) -> None:
        """Dials when there is an owner in a cluster, and no standby that may stay, or another is wanted."""
        while True:
            await self._while(lambda: not self._lacks_standby())
            leaving, pause = self._leaving, self._standby_pause.next()  # drawn anew when the owner's hub drains
            if await self._while(partial(self._may_wait, leaving), pause):
                redrawn, self._redrawn = self._redrawn, ""
                url = redrawn if redrawn and not self._target else self._choice.for_standby(self._target)
                await self._dial(url, "standby", self._standby_pause)

    def _may_wait(self, leaving: bool) -> bool:
        return self._lacks_standby() and self._leaving is leaving

    @property
    def _leaving(self) -> bool:
        return self.owner is not None and self.owner.draining

    def _redraw_later(self) -> None:
        self._redraw_timer = self.net.call_later(self.net.rng.uniform(REDRAW, 1.5 * REDRAW), self._redraw)

    def _redraw(self) -> None:
        """The standby's hub is drawn anew, so that one that was away has its part of them again; mostly it stays."""
        self._redraw_later()
        url = self._choice.drawn()
        if self.standby is not None and self._choice.leads(url) != self.standby.replica_id:
            self._redrawn = url
            self._changed.set()

    async def _while(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Waits as long as `condition` holds, at most `seconds`. Whether it still does."""
        try:
            async with asyncio.timeout(seconds):
                while condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return False

    async def _dial(self, url: str, role: str, pause: Backoff) -> bool:
        """Whether a hub has answered the handshake; what its tunnel is for, the moment decides."""
        tunnel = AgentTunnel(self._ground, self._services, self, url)
        if not await self._attempts.make(tunnel, role, pause):
            return False
        self._dialled(tunnel)
        return True

    def _answered(self) -> None:
        """What is dialled from now on may be a hub that has lost its agents: rule 4."""
        self._owner_pause.begin_at(self.config.reconnect.min_sec)

    def _dialled(self, tunnel: AgentTunnel) -> None:
        timeout = self.config.reconnect.connect_timeout_sec
        if tunnel.link.closed or self._closed:
            tunnel.abandon()
        elif self._wants_owner() and self.net.clock() >= self._conflict_until:
            self._claim(tunnel, timeout)
        elif self._lacks_standby():
            self.greeting = tunnel
            tunnel.greet(timeout)
        else:
            tunnel.abandon()

    def announce(self) -> None:
        """Tells the hubs what is served from now on."""
        for tunnel in self.all():
            tunnel.announce()

    # what tunnels tell

    def granted(self, tunnel: AgentTunnel) -> None:
        """The tunnel's hub owns the agent from now on; the flows move there."""
        # those that have moved last ask first; to lose their way makes all alike
        flows_here = sorted(self._ground.flows.values(), key=lambda flow: flow.since, reverse=True)
        before, self.owner, self.claimant = self.owner, tunnel, None
        self._ground.counts.granted += 1
        lost_at, self._lost_at = self._lost_at, None
        outage_ms = None if lost_at is None or before is not None else round((self.net.clock() - lost_at) * 1000, 3)
        again = bool(self._again)
        self._settled()
        self._choice.answered(tunnel.url, tunnel.replica_id)
        self._choice.owns(tunnel.url)
        self.last_epoch = tunnel.epoch
        self._ground.bound_grace(tunnel.grace)
        self._cluster = tunnel.cluster
        self._standby_pause.reset()
        tunnel.tell_up()
        if before is not None:
            if again and any(flow.path is before.link for flow in flows_here):
                self._former.keep(before)
            else:
                # first: of flows that had left, what still comes there would be unknown, and the hub would be told so
                before.close("moved to another hub")
            tunnel.tell_move(before.epoch)
        elif outage_ms is not None and tunnel.stood:
            tunnel.tell_takeover(outage_ms)
        if self.standby is not None and self.standby.replica_id == tunnel.replica_id:
            self.standby.close("the owner is on the same hub")
        for flow in flows_here:
            if not self._former.carries(flow):
                if before is not None and before is self._former.tunnel:
                    self._former.waits(flow.cid)
                tunnel.carry(flow)
        self._changed.set()
        self.on_granted()

    def left(self, tunnel: AgentTunnel, cid: bytes) -> None:
        """The hub has said that a flow has lost its way on this tunnel."""
        flow = self._former.lets_go(tunnel, cid)
        if flow is not None and self.owner is not None:
            self.owner.carry(flow)

    def standing(self, tunnel: AgentTunnel) -> None:
        """The tunnel's hub has answered, and would take a claim."""
        self.greeting = None
        self._choice.answered(tunnel.url, tunnel.replica_id)
        if any(
            other is not None and other.replica_id == tunnel.replica_id
            for other in (self.owner, self.claimant, self.standby)
        ):
            self._choice.of_no_use(tunnel.url)
            tunnel.close("this hub has a tunnel of ours")
        elif not tunnel.cluster:
            self._choice.of_no_use(tunnel.url)
            tunnel.close("this hub is in no cluster")
        elif self._target and self._target != tunnel.replica_id and self.standby is not None:
            tunnel.close("not the hub that we are to move to")
        else:
            before, self.standby = self.standby, tunnel
            _log.info("standby_up", hub=tunnel.url, replica=tunnel.replica_id, session=tunnel.session)
            self._take_over()
            if before is not None and self.standby is None and not before.draining:
                self.standby = before  # it is none of the two that we move between
            elif before is not None:
                before.close("another standby has taken its place")
        self._changed.set()

    def told_again(self, tunnel: AgentTunnel) -> None:
        """The owner's hub has joined others, or left them. A standby that stands stays."""
        if tunnel is self.owner:
            self._cluster = tunnel.cluster
            self._choice.look_again(tunnel.url)  # the others may have joined, too
            self._changed.set()

    def leaving(self, tunnel: AgentTunnel) -> None:
        """The tunnel's hub drains, and ends the tunnel in so many seconds as it has said."""
        if tunnel is self.owner:
            self._standby_pause.reset(tunnel.drain / 2 if tunnel.drain else math.inf)
        self._take_over()
        self._changed.set()

    def asked_to_move(self, tunnel: AgentTunnel, replica_id: str) -> None:
        """The owner's hub has more agents than its share, or is about to be another process: rule 6."""
        if tunnel is not self.owner or self.claimant is not None:
            return  # it is being left already
        self._settled()
        _log.info("move_asked", hub=tunnel.url, replica=tunnel.replica_id, to=replica_id)
        if replica_id == tunnel.replica_id:
            self._again, possible, pause = replica_id, True, self._owner_pause
        else:
            self._target, possible, pause = replica_id, self.config.standby and self._cluster, self._standby_pause
        if not possible or self._ground.stopping.is_set():
            self._stay()
            return
        self._target_timer = self.net.call_later(MOVE_TIME, self._stay)
        pause.reset()
        self._take_over()
        self._changed.set()

    def _stay(self) -> None:
        """We do not get where we are to move."""
        if self.owner is not None:
            there = self._target or self._again
            self.owner.stay(there)
            _log.info("move_refused", hub=self.owner.url, replica=self.owner.replica_id, to=there)
        self._settled()

    def _settled(self) -> None:
        """We are to move nowhere."""
        self._target = self._again = ""
        if self._target_timer is not None:
            self._target_timer.cancel()
            self._target_timer = None

    def outdated(self, tunnel: AgentTunnel, epoch: int) -> None:
        """The other end of a flow has refused the tunnel's epoch, since it knows of `epoch`: rule 5."""
        if tunnel is not self.owner or epoch < tunnel.epoch or not follows(epoch, tunnel.epoch):
            return
        self._outdone_by = max(self._outdone_by, epoch)
        self._said = max(self._said, self._outdone_by)
        if self._renewal is None:
            self._renewal = self.net.call_later(max(0.0, self._renewed_at + RENEWAL - self.net.clock()), self._renew)

    def _renew(self) -> None:
        owner = self.owner
        self._renewal = None
        if owner is not None and owner.epoch <= self._outdone_by and not self._closed:
            self._renewed_at = self.net.clock()
            owner.stale = True
            _log.warning("epoch_outdated", hub=owner.url, replica=owner.replica_id, epoch=owner.epoch)
            self._take_over()

    def ended(self, tunnel: AgentTunnel, state: TunnelState, lasted: float, reason: Reason, detail: str) -> None:
        """The tunnel is gone, after `lasted` seconds in `state`."""
        now = self.net.clock()
        if tunnel is self.standby:
            self.standby = None
            if lasted >= STEADY:
                self._standby_pause.reset()
        elif tunnel is self.greeting:
            self.greeting = None
        elif tunnel is self.claimant:
            self.claimant = None
            if self._target or self._again:
                self._stay()
            self._conflict(reason, now)
            self._given_up_at = now
            if reason is Reason.PROTOCOL_ERROR and not tunnel.heard:
                self._forget()
            self._choice.refused(tunnel.url, reason is Reason.GOING_AWAY)
        elif tunnel is self._former.tunnel:
            for flow in self._former.ended():
                if self.owner is not None:
                    self.owner.carry(flow)
        elif tunnel is self.owner:
            self.owner = None
            if lasted >= STOOD:
                self._owner_pause.reset()
            self._settled()
            self._lost_at = now
            self._conflict(reason, now)
            if reason in SILENT:
                self._choice.leave(tunnel.url)
        elif not tunnel.closing:
            self._choice.leave(tunnel.url)
        tunnel.tell_end(state, reason, detail)
        self._take_over()
        self._changed.set()

    def _forget(self) -> None:
        """Claims above nothing from now on: rule 7."""
        if self.last_epoch:
            _log.warning("epoch_forgotten", epoch=self.last_epoch)
        self.last_epoch, self._said, self._outdone_by = 0, -1, -1

    def _conflict(self, reason: Reason, now: float) -> None:
        """Rule 3."""
        if (
            reason is Reason.SUPERSEDED
            and self.owner is None
            and self.claimant is None
            and now - self._given_up_at >= CLAIM_MEMORY
        ):
            self._conflict_until = now + min(CONFLICT_DELAY, self.config.reconnect.max_sec)
