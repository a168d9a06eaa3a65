"""The predecessor's side of an upgrade: all that is here passes to another process of this hub, its successor.

The successor is the same hub: replica_id, the first half of its cids, and the entries of the registry are ours. So
other hubs and agents see a mesh link, or a tunnel, that was lost and came back (docs/decisions/0022-upgrade.md). In
order:

 1. `heritage`: who we are, and every listening socket. We claim nothing any more; agents and hubs that connect wait
    in the kernel's queue. Until the successor is `serving` nothing else has changed.
 2. `mesh`: our links to other hubs have ended, its may begin.
 3. Agents are asked to claim there (MOVE that names our own replica_id), some each moment, those that carry most
    first. Who cannot move, or does not, loses the tunnel and claims there as after any loss. Of each claim we hear
    (`claimed`), and the agent's flows leave their tunnel here one by one (`ncfast.hub.leaving`), which ends with the
    last; of each tunnel that ends without a claim we tell (`gone`). Of an agent that claims at another hub we hear by
    the flows that it asks for there (`asked`).
 4. A flow follows its way: whichever has none here is passed (`flows`), and no more than the successor goes on with at
    once (`placed`). Clients are let in here until no agent is left, and passed at once. `complete` says that all of an
    agent's have gone.
 5. `listen`: clients are let in there. Those who have no flow yet are passed. `over`: nothing is left but sockets
    that linger over their last bytes, which end here when it has said `done`.

A parcel is ours until the successor has said that it is `taken`, which it says before it does anything with it. If it
goes before the end, we put together again what it has not taken, open the doors, and go on; what it had taken is gone
with it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ncfast.core.errors import Reason
from ncfast.hub.client import ClientFlow
from ncfast.hub.leaving import Leaving
from ncfast.hub.listener import FirstByte, ProxyHeader
from ncfast.hub.passing import Handed
from ncfast.hub.session import AgentSession
from ncfast.net.channel import MAX_FDS
from ncfast.net.handover import HandoverFailed, Successor
from ncfast.net.parcel import Parcel
from ncfast.observe import log

if TYPE_CHECKING:
    from ncfast.net.channel import Channel

_log = log.get("upgrade")

CIDS = 1 << 32  # numbers of cids that are left to us: more than we give out until the end
LOOK = 0.01  # seconds between two looks at what is left
REPORT = 0.25  # seconds between two words on that to the successor
BATCH = MAX_FDS  # clients in a message: as many as there is room for
BATCH_BYTES = 1 << 20  # of a message, about: what is kept for replay is most of it
AHEAD = 8  # messages of which the successor has not put all clients under their sockets
AGENTS_PER_SEC = 500.0  # that are asked to move: the successor's handshakes cost some 0.5 ms each, TLS 1 ms
MOVES = 5.0  # seconds for an agent to claim at the successor once it is asked, before it loses its tunnel


class Giving:
    """One hand-over. `passed` counts clients that the successor has taken."""

    role = "giving"

    def __init__(self, hub: Handed, channel: Channel) -> None:
        self._hub = hub
        self._ground = hub.ground
        self._net = hub.net
        self._successor = Successor(hub.net, channel)
        self._passing = hub.passing
        # flows that are to be passed, and marks (agents' keys) behind the last of an agent's
        self._leaving: deque[ClientFlow | str] = deque()
        self._queued: set[ClientFlow] = set()
        self._on_way: deque[tuple[int, list[Parcel]]] = deque()  # by number of the message
        self._number = self._placed = 0  # of the last that was sent, and the last that it has gone on with
        self._pumping = False
        self._asked: dict[AgentSession, float] = {}  # to move, and until when they may take for it
        self._went: set[AgentSession] = set()  # those of them that know of the move
        self._moved: set[AgentSession] = set()  # to the successor, where they have claimed
        self._given_up = math.inf  # when no agent is waited for any more
        self._leave = Leaving(self._net.clock, self._keeps_up)
        self._report_at = 0.0
        self.passed = 0
        self.begun_at = self._net.clock()

    # what is seen

    @property
    def left(self) -> dict[str, int]:
        """What is still here."""
        hub = self._hub
        return {
            "flows": len(self._ground.flows),
            "agents": sum(session.owns for session in hub.sessions),
            "sockets": sum(listener.active for listener in hub.listeners.values()),
        }

    def snapshot(self) -> dict[str, Any]:
        return {
            "role": self.role,
            "seconds": round(self._net.clock() - self.begun_at, 3),
            "passed": self.passed,
            "left": self.left,
        }

    # the hand-over

    async def give(self) -> None:
        """Returns when nothing is left here. Raises HandoverFailed; `take_back` is the caller's then."""
        hub, successor = self._hub, self._successor
        successor.listen(self._hear)
        self._ground.giving = self
        hub.registry.quiet(True)
        hub.hold_doors()
        self._say_heritage()
        await self._serves()
        hub.registry.quiet(True, beats=False)
        self._leave_mesh()
        await self._move_agents()
        self._close_to_clients()
        await self._until(lambda: not self._ground.flows and not self._leaving and not self._on_way)
        successor.channel.send("over", {})
        await successor.says("done")
        _log.info("upgrade_passed", passed=self.passed, duration_sec=round(self._net.clock() - self.begun_at, 3))

    def _say_heritage(self) -> None:
        hub, ground = self._hub, self._ground
        self._successor.pass_doors()
        self._successor.channel.send(
            "heritage",
            {
                "replica_id": ground.replica_id,
                "instance": ground.instance.hex(),
                "number": hub.router.flow_number + CIDS,
                "registry": hub.registry.heritage(),
                "locks": [asdict(one) for one in ground.locks.words()],
                "departed": hub.router.departed(),
                "sockets": self._net.sockets,
            },
        )

    async def _serves(self) -> None:
        """Returns when the successor has bound everything. Raises HandoverFailed, also when it takes too long."""
        seconds = self._ground.config.upgrade.timeout_sec
        if not await self._successor.says("serving", seconds):
            raise HandoverFailed(f"it did not serve within {seconds:g} s (upgrade.timeout_sec)")

    async def _until(self, done: Callable[[], bool]) -> None:
        """Raises HandoverFailed when the successor goes before that."""

        def look() -> bool:
            self._report()
            return done()

        await self._successor.until(look)

    def _report(self) -> None:
        """Tells the successor, whom people ask, what is left here."""
        now = self._net.clock()
        if self._serving and now >= self._report_at:
            self._report_at = now + REPORT
            self._successor.channel.send("left", self.left)

    def _leave_mesh(self) -> None:
        hub = self._hub
        hub.cluster.part()
        ended_lately = self._ground.context.closed.pack()
        self._successor.channel.send("mesh", {}, ended_lately)
        for flow in hub.router.hold.clear():
            self.passes(flow)
        self._pass([flow for flow in self._ground.flows.values() if flow.detached_at >= 0 and not flow.attached])

    def _close_to_clients(self) -> None:
        """The successor lets clients in from now on."""
        listeners = list(self._hub.listeners.values())
        for listener in listeners:
            listener.hold()
        self._successor.channel.send("listen", {})
        self._pass([flow for flow in self._ground.flows.values() if not flow.attached])
        waiting: list[ProxyHeader | FirstByte] = []
        for listener in listeners:
            waiting += (*listener.heading, *listener.waiting)
        early = [parcel for one in waiting if (parcel := self._passing.client(one)) is not None]
        for start in range(0, len(early), BATCH):
            self._send(early[start : start + BATCH])

    async def linger(self) -> None:
        """After `give`, until no socket is left that lingers over its last bytes, for `drain.timeout_sec` at most."""
        deadline = self._net.clock() + self._ground.config.drain.timeout_sec
        while self.left["sockets"] and self._net.clock() < deadline:
            await asyncio.sleep(LOOK)

    def take_back(self) -> None:
        """The successor is dead, so that no flow is at both: what it has not taken is here."""
        hub = self._hub
        self._ground.giving = None
        self._successor.lose("it was broken off")  # nothing more is passed
        for session in self._moved:  # they will claim here again
            session.link.fail(Reason.GOING_AWAY, "the process that had taken over has gone")
        for _, parcels in self._on_way:
            for parcel in parcels:
                try:
                    self._passing.put(parcel, passed=False)
                except Exception:  # a defect, which costs that one: the doors are to open
                    _log.exception("handover_defect")
        hub.registry.quiet(False)
        hub.open_doors()
        if self._serving:
            hub.cluster.rejoin()
        for one in self._leaving:
            if not isinstance(one, str) and not one.closed and not one.attached:
                hub.router.returns(one)
        _log.error("upgrade_taken_back", reason=self._successor.lost, passed=self.passed)

    # what the successor says

    @property
    def _serving(self) -> bool:
        return "serving" in self._successor.heard

    def _hear(self, kind: str, body: dict[str, Any]) -> None:
        match kind:
            case "claimed":
                self._claimed(body["agent"], body["epoch"], body.get("alone", False))
            case "taken":
                number, parcels = self._on_way.popleft()
                if number != body["number"]:
                    raise ValueError("taken out of turn")
                for parcel in parcels:
                    parcel.close()
                self.passed += len(parcels)
            case "asked":
                self.moved_on(bytes.fromhex(body["cid"]), body["epoch"])
            case "placed":
                self._placed = body["number"]
                self._pump_soon()
                self._leave.go_on()

    # agents

    async def _move_agents(self) -> None:
        """Returns when no tunnel is left, and none is about to be."""
        hub, clock = self._hub, self._net.clock
        order = deque(sorted(hub.sessions, key=lambda one: (len(one.link.lanes), one.load), reverse=True))
        spread = len(order) / AGENTS_PER_SEC + MOVES  # for all to be asked, and the last to move
        self._given_up = clock() + max(self._ground.config.drain.timeout_sec, spread)
        self._asked = dict.fromkeys(order, self._given_up)
        begun, asked = clock(), 0
        while len(hub.sessions) or len(hub.edge.pending):
            self._successor.check()
            self._report()
            self._leave.go_on()
            now = clock()
            while order and asked <= (now - begun) * AGENTS_PER_SEC:
                asked += self._ask(order.popleft(), now)
            for session in hub.sessions:
                # who has come since has no place here; from who leaves, flows go on to be passed
                if self._asked.get(session, now) <= now:
                    session.link.fail(Reason.GOING_AWAY, "another process of this hub goes on")
            await asyncio.sleep(LOOK)
        self._successor.check()

    def _ask(self, session: AgentSession, now: float) -> bool:
        """Whether that was somebody who comes again at once."""
        if session.link.closed:
            return False
        if session.owns and session.moves_again:
            self._asked[session] = now + MOVES
            self._went.add(session)
            session.ask_to_move(self._ground.replica_id)
        else:
            self._asked[session] = now
        return session.known

    def stays(self, session: AgentSession) -> None:
        """The agent does not come to the successor by itself."""
        self._asked[session] = self._net.clock()

    def _claimed(self, agent: str, epoch: int, alone: bool) -> None:
        """The agent is the successor's, and its flows are to leave its tunnel here: what it says is still heard.
        `alone`: it has left the tunnel; an older successor does not say."""
        session = self._hub.sessions.current(agent)
        if session is None or session.epoch >= epoch:
            return
        session.draining = True
        self._hub.sessions.unroute(session)
        self._moved.add(session)
        if session not in self._went:  # it has come by itself: what it had here is lost to it
            session.link.fail(Reason.GOING_AWAY, "it has claimed at another process of this hub")
            return
        self._asked[session] = self._given_up
        self._leave.begin(session, list(self._hub.steering.flows_of(agent)), alone=alone)
        self._leave.go_on()

    def let_go(self, session: AgentSession, cid: bytes) -> None:
        """The agent has let go of a flow on the tunnel."""
        flow = self._ground.flows.get(cid)
        if flow is not None and not flow.attached:
            self._leave.left(session, flow)
            self.passes(flow)

    def moved_on(self, cid: bytes, epoch: int) -> None:
        """The flow's agent asks for it by way of another hub, where it has claimed since: it has left its tunnel here,
        and nobody may look after that any more."""
        flow = self._ground.flows.get(cid)
        if flow is not None and flow.attached and epoch > flow.info.epoch:
            flow.detach()
            self.passes(flow)

    def gave(self, cid: bytes) -> bool:
        """Whether a flow that is not here may be the successor's by now."""
        return self._serving and self._ground.missing(cid)

    def lost(self, session: AgentSession) -> None:
        """The tunnel of an agent that was owned here has ended; its flows have lost their way."""
        if session not in self._moved:
            self._successor.channel.send("gone", {"agent": session.key, "epoch": session.epoch})
        self._leave.over(session)
        self._pass([flow for flow in self._hub.steering.flows_of(session.key) if not flow.attached])
        self._leaving.append(session.key)
        self._pump_soon()

    # clients

    def passes(self, flow: ClientFlow) -> bool:
        """A flow has no way here: the successor gets it, if there is one yet."""
        if not self._serving:
            return False
        if flow not in self._queued:
            self._queued.add(flow)
            self._leaving.append(flow)
            self._pump_soon()
        return True

    def _pass(self, flows: list[ClientFlow]) -> None:
        """Those of which something is under way first."""
        busy = [one for one in flows if one.backlog or one.snd_nxt > one.snd_una]
        first = dict.fromkeys((*busy, *flows))
        self._leaving.extend(one for one in first if one not in self._queued)
        self._queued.update(first)
        self._pump_soon()

    def _keeps_up(self) -> bool:
        """Whether the successor goes on with what has come to it as fast as it comes."""
        return not self._leaving and self._number - self._placed < AHEAD // 2

    def _pump_soon(self) -> None:
        if not self._pumping and self._leaving:
            self._pumping = True
            self._net.call_soon(self._pump)

    def _pump(self) -> None:
        """Passes some, a message in each turn, and few ahead of what the successor has gone on with: what is here yet
        does not wait there, and may still be reset."""
        self._pumping = False
        if self._successor.lost or not self._serving:
            return
        parcels: list[Parcel] = []
        size = 0
        while self._leaving and self._number - self._placed < AHEAD:
            one = self._leaving.popleft()
            if isinstance(one, str):
                self._send(parcels)
                self._successor.channel.send("complete", {"agent": one})
                parcels, size = [], 0
                continue
            self._queued.discard(one)
            if one.closed or one.attached:
                continue
            parcel = self._passing.flow(one)
            if parcel is None:
                continue
            parcels.append(parcel)
            size += len(parcel.record) + len(parcel.unsent)
            if len(parcels) == BATCH or size >= BATCH_BYTES:
                break
        self._send(parcels)
        if self._number - self._placed < AHEAD:
            self._pump_soon()

    def _send(self, parcels: list[Parcel]) -> None:
        if not parcels:
            return
        self._number += 1
        self._on_way.append((self._number, parcels))
        self._successor.pass_flows(parcels, number=self._number)
