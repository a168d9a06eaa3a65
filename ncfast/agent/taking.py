"""The successor's side of an upgrade: this process is the agent that another has been, and takes over what is there.

`ncfast.agent.giving` has the order. Flows lie in their parcels until all have come; then the predecessor is told that
they are `taken`, we claim over the tunnel that was dialled meanwhile, if that stands and leads where the agent is owned
by now, or dial there, and put them under their sockets (`ncfast.agent.arrivals`), those first that have come last: the
others rested. If the predecessor goes before its `commit`, its flows have ended with it, and this process is an agent
that has just started.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from ncfast.agent.arrivals import Arrivals
from ncfast.agent.passing import Agent
from ncfast.agent.tunnel import AgentTunnel
from ncfast.net.channel import Channel, Message
from ncfast.net.handover import NoHeritage
from ncfast.net.parcel import Parcel, unpacked
from ncfast.observe import log

GO_ON = 5.0  # seconds for the last flow to go on, before all is called done: its hub may be away

_log = log.get("upgrade")


@dataclass(frozen=True, slots=True)
class Heritage:
    """What a successor must know to be the same agent."""

    instance: str
    hub: str  # the URL of the owner's tunnel, or of where one was sought next; a release before says "" then
    down: frozenset[str]  # connectors whose targets are not well
    flows: int  # that it had when it said so

    @classmethod
    def read(cls, said: dict[str, Any]) -> Self:
        """As `Giving` says it. Raises NoHeritage."""
        try:
            instance, hub, down = bytes.fromhex(said["instance"]).hex(), str(said["hub"]), frozenset(said["down"])
            return cls(instance, hub, down, int(said.get("flows", 0)))
        except (KeyError, TypeError, ValueError) as exc:
            raise NoHeritage(f"the predecessor does not say who it is: {exc}") from None


class Taking:
    """One hand-over, until the predecessor is `over`."""

    role = "taking"

    def __init__(self, agent: Agent, heritage: Heritage) -> None:
        self._agent = agent
        self._heritage = heritage
        self._channel: Channel
        self._parcels: list[Parcel] = []
        self._resting = 0  # the first so many of them
        self._ahead: AgentTunnel | None = None
        self._begun = False  # we are the agent
        self._left_alone = False  # the predecessor has nothing left
        self._late: asyncio.TimerHandle | None = None
        self._arrivals: Arrivals | None = None
        self._passed = 0  # flows that have come
        self._gone_on = 0  # of them, or ended
        self._longest = 0.0  # pause of a flow, seconds
        self._begun_at = agent.net.clock()
        self.over = False
        agent.ground.instance = heritage.instance
        for name in heritage.down:
            target = agent.services.target(name)
            if target is not None:
                target.healthy = False

    @property
    def _left(self) -> int:
        """Flows that are yet to come, about."""
        return 0 if self._begun else max(0, self._heritage.flows - self._passed)

    def snapshot(self) -> dict[str, Any]:
        return {
            "role": self.role,
            "seconds": round(self._agent.net.clock() - self._begun_at, 3),
            "passed": self._passed,
            "longest_pause_sec": round(self._longest, 6),
            "left": {"flows": self._left},
        }

    def listen(self, channel: Channel) -> None:
        """Everything is bound; dials, and says so."""
        self._channel = channel
        channel.on_message, channel.on_closed = self._hear, self._lose
        self._agent.net.spawn(self._dial(), "dial")

    async def _dial(self) -> None:
        agent = self._agent
        self._ahead = await agent.tunnels.dial_ahead(self._heritage.hub)
        if self._begun and self._ahead is not None:  # the predecessor has gone meanwhile
            self._ahead.abandon()
        failure = agent.ground.counts.last_failure
        said = {} if self._ahead is not None or failure is None else {"reason": f"{failure.hub}: {failure.reason}"}
        self._channel.send("dialled", {"hub": self._ahead is not None, **said})

    def _hear(self, message: Message) -> None:
        match message.kind:
            case "flows":
                self._parcels += unpacked(message.body["heads"], message.payload, message.fds)
                self._passed = len(self._parcels)
            case "resting":
                self._resting = message.body["flows"]
                self._channel.send("resting", {})
            case "commit":
                self._commit(message)
            case "over":
                self._left_alone = True
                self._end_if_done()
            case _:
                message.close()

    def _commit(self, message: Message) -> None:
        agent = self._agent
        if len(self._parcels) != message.body["flows"]:
            raise ValueError("flows are missing")
        self._channel.send("taken", {})
        agent.ground.context.closed.take(message.payload)
        for cid in message.body.get("turned_away", ()):  # a release before says nothing of them
            agent.ground.turn_away(bytes.fromhex(cid))
        hub = message.body.get("hub", self._heritage.hub)  # a release before does not say it again
        agent.tunnels.inherit(message.body["last_epoch"], message.body["said"], hub)
        self._begin()
        order = [*self._parcels[self._resting :], *self._parcels[: self._resting]]
        self._arrivals = Arrivals(agent, order, self._arrived)
        self._parcels = []
        self._arrivals.begin()

    def _arrived(self) -> None:
        _log.info("upgrade_taken", flows=self._passed - self._lost, lost=self._lost)
        self._end_if_done()

    @property
    def _lost(self) -> int:
        return 0 if self._arrivals is None else self._arrivals.lost

    def bring_all(self) -> None:
        """All flows that have come are under their sockets when this returns; it is for others to wait for a hub that
        is away."""
        if self._arrivals is not None:
            self._arrivals.bring_all()
            self._end_if_done(late=True)

    def _begin(self) -> None:
        self._begun = True
        self._agent.tunnels.on_granted = self._owner
        self._agent.tunnels.start(self._ahead)

    def _owner(self) -> None:
        self._channel.send("owner", {})

    def goes_on(self, pause: float = 0.0) -> None:
        """A flow that has come goes on, after so many seconds, or has ended."""
        self._gone_on += 1
        self._longest = max(self._longest, pause)
        self._end_if_done()

    def _end_if_done(self, *, late: bool = False) -> None:
        if self.over or not self._left_alone or self._arrivals is None or self._arrivals.left:
            return
        if late or self._gone_on + self._lost >= self._passed:
            self._end("done")
        elif self._late is None:
            self._late = self._agent.net.call_later(GO_ON, partial(self._end_if_done, late=True))

    def _end(self, result: str) -> None:
        self.over = True
        self._agent.ground.counts.handovers[result] += 1
        _log.info(
            "upgrade_done",
            result=result,
            passed=self._passed - self._lost,
            longest_pause_sec=round(self._longest, 6),
            duration_sec=round(self._agent.net.clock() - self._begun_at, 3),
        )

    def _lose(self, reason: str) -> None:
        if self._begun:
            if not self._left_alone:
                self._end("cut")
            return
        agent, self.over = self._agent, True
        for parcel in self._parcels:
            parcel.close()  # the last to have it: a reset
        _log.error("upgrade_cut", flows=len(self._parcels), reason=reason)
        self._parcels = []
        agent.ground.counts.handovers["cut"] += 1
        agent.ground.instance = agent.net.entropy(16).hex()
        self._begin()
