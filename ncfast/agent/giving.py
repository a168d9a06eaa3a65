"""The predecessor's side of an upgrade: all that is here passes to another process of this agent, its successor.

The successor is the same agent process to a hub: it has our `instance`, and claims above all that we have claimed. In
order:

 1. `heritage`: who we are, where our owner is, how well targets are; and the listening sockets. The successor dials
    that hub up to the end of the handshake, says no HELLO, and answers `dialled`, or that there is no hub now. Until
    then nothing has changed here.
 2. Flows that rest (`Flow.resting`) are taken off their sockets and passed (`flows`), a message in each turn of the
    loop: the others go on meanwhile. What comes for one that is off is passed over in silence (`FlowContext.passed`):
    the hub keeps it, and sends it again when it is asked for the flow. `resting`: these were all; the successor says
    the same when it has them.
 3. We look at nothing more that comes by tunnels, and give up dials of targets under way without a word: what the hub
    has sent us meanwhile it sends again to the successor, and opens it again.
 4. The flows that are left are taken off and passed, those of which something is under way first, then `commit` with
    the last epoch that we know of, with where our owner is by now, with the flows that ended lately, and with those of
    them that may come again. In that order they go on there, and behind them those that rested: how long a flow that
    moves stands still does not depend on how many do not.
 5. The successor says `taken` before it does anything with them, and claims. Our tunnels are closed when it owns, or
    after `LEAVES`, so that the hub sees a newer claim, and at no time an agent that has left. `over`: nothing is left
    but sockets that linger over their last bytes, which end here.

All is ours until it is `taken`. If the successor goes before that, we put the flows under their sockets again, refuse
the opens that we had given up, and ask for the flows over the tunnels that we have. For `taken` we wait as long as it
lives: who has the flows must not be in doubt. If it goes between `taken` and its claim, the flows have ended with it,
and we are an agent that has just started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from ncfast.agent.info import AgentInfo
from ncfast.agent.passing import Agent, Passing
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.handover import export
from ncfast.net.channel import MAX_FDS, Channel
from ncfast.net.handover import HandoverFailed, Successor
from ncfast.net.parcel import Parcel
from ncfast.observe import log

_log = log.get("upgrade")

BATCH_BYTES = 1 << 20  # of a message, about: what is kept for replay is most of it
CATCH_UP = 0.25  # seconds for the successor to have all flows that rest; one of release 0.1.0 does not say so
LEAVES = 10.0  # seconds for the successor to own the agent, before our tunnels end all the same


class Giving:
    """One hand-over."""

    role = "giving"

    def __init__(self, agent: Agent, channel: Channel) -> None:
        self._agent = agent
        self._ground = agent.ground
        self._tunnels = agent.tunnels
        self._net = agent.net
        self._successor = Successor(agent.net, channel)
        self._passing = Passing(agent.ground, agent.services)
        self._held = self._taken = False  # our tunnels; our flows, by the successor
        self._parcels: list[Parcel] = []  # in the order in which they are passed
        self._dropped: list[bytes] = []  # cids of opens that we have given up
        self._passed = 0  # of these, in messages that were sent
        self._begun_at = self._net.clock()

    def snapshot(self) -> dict[str, Any]:
        return {
            "role": self.role,
            "seconds": round(self._net.clock() - self._begun_at, 3),
            "passed": self._passed,
            "left": {"flows": len(self._ground.flows)},
        }

    async def give(self) -> None:
        """Returns when the successor owns the agent, or tries to. Raises HandoverFailed; `take_back` is the caller's
        then."""
        successor = self._successor
        successor.listen()
        successor.pass_doors()
        successor.channel.send("heritage", self._heritage())
        self._net.hold_doors(True)  # who asks how the agent is waits until the successor answers
        seconds = self._ground.config.upgrade.timeout_sec
        if not await successor.says("dialled", seconds):
            raise HandoverFailed(f"it did not serve within {seconds:g} s (upgrade.timeout_sec)")
        self._judge_dial()
        await self._pass_resting()
        self._tunnels.hold()
        self._held = True
        await asyncio.sleep(0)  # connections that have just ended say so to their flows
        stopped = self._net.clock()
        await self._pass(self._take_off())
        self._commit()
        await successor.says("taken")
        self._taken, pause = True, self._net.clock() - stopped
        for parcel in self._parcels:
            parcel.close()
        _log.info(
            "upgrade_passed",
            passed=self._passed,
            pause_ms=round(pause * 1000, 3),
            duration_sec=round(self._net.clock() - self._begun_at, 3),
        )
        await successor.says("owner", LEAVES)
        self._tunnels.close("another process of this agent goes on")
        successor.channel.send("over", {})

    def _judge_dial(self) -> None:
        """An upgrade does not make a tunnel that works into none. Raises HandoverFailed."""
        said, owner = self._successor.heard["dialled"], self._tunnels.owner
        if owner is not None and not said["hub"]:
            why = said.get("reason", "its log says why")
            raise HandoverFailed(f"it got no tunnel ({why}), and this process has one to {owner.url}")

    def _heritage(self) -> dict[str, Any]:
        return {
            "instance": self._ground.instance,
            "flows": len(self._ground.flows),
            "sockets": self._net.sockets,
            "down": [name for name, one in self._agent.services.targets.items() if not one.healthy],
            **self._tunnels.heritage(),
        }

    # flows

    async def _pass_resting(self) -> None:
        """Those that nobody waits for."""
        await self._pass(self._take_off_resting())
        self._successor.channel.send("resting", {"flows": len(self._parcels)})
        await self._successor.says("resting", CATCH_UP)

    def _take_off_resting(self) -> Iterator[Parcel]:
        """Each when it is asked for."""
        for flow in list(self._ground.flows.values()):
            if flow.resting and (parcel := self._off(flow)) is not None:
                yield parcel

    def _take_off(self) -> list[Parcel]:
        """All that are left, but those whose target is not connected: they are none yet."""
        flows: list[Flow[AgentInfo]] = list(self._ground.flows.values())
        for flow in flows:
            if flow.info.connecting is not None:
                flow.info.connecting.give_up()
                self._dropped.append(flow.cid)
                export(flow)
        left = [flow for flow in flows if not flow.closed]
        left.sort(key=lambda one: (not (one.backlog or one.snd_nxt > one.snd_una), -one.since))
        parcels: list[Parcel] = []
        for flow in left:
            parcel = self._off(flow)
            if parcel is None:
                flow.reset(Reason.TARGET_RESET)  # as it is about to be
            else:
                parcels.append(parcel)
        return parcels

    def _off(self, flow: Flow[AgentInfo]) -> Parcel | None:
        parcel = self._passing.off(flow)
        if parcel is not None:
            self._parcels.append(parcel)
            self._ground.context.passed.add(flow.cid)
        return parcel

    async def _pass(self, parcels: Iterable[Parcel]) -> None:
        """A message in each turn of the loop, as fast as the successor reads. Raises HandoverFailed."""
        batch: list[Parcel] = []
        size = 0
        for parcel in parcels:
            batch.append(parcel)
            size += len(parcel.record) + len(parcel.unsent)
            if len(batch) == MAX_FDS or size >= BATCH_BYTES:
                self._say(batch)
                batch, size = [], 0
                await asyncio.sleep(0)
                await self._successor.channel.drained()
                self._successor.check()
        self._say(batch)

    def _say(self, batch: list[Parcel]) -> None:
        if batch:
            self._successor.pass_flows(batch)
            self._passed += len(batch)

    def _commit(self) -> None:
        commit = {
            "last_epoch": self._tunnels.last_epoch,
            "said": self._tunnels.next_claim(),
            "hub": self._tunnels.next_hub,
            "flows": len(self._parcels),
            "turned_away": [cid.hex() for cid in self._ground.turned_away],
        }
        self._successor.channel.send("commit", commit, self._ground.context.closed.pack())

    def take_back(self) -> None:
        """The successor is dead, so that no flow is at both: what it has not taken is here."""
        self._net.hold_doors(False)
        self._ground.context.passed.clear()
        if self._taken:
            self._start_anew()
        elif self._held or self._parcels:
            self._put_back()

    def _start_anew(self) -> None:
        """The successor has gone with all flows: what is left is an agent without any, and hubs are to know."""
        for tunnel in self._tunnels.all():
            tunnel.close("the process that had taken over has gone")
        self._ground.instance = self._net.entropy(16).hex()
        self._tunnels.go_on()

    def _put_back(self) -> None:
        """The successor has gone without our flows."""
        back: list[Flow[AgentInfo]] = []
        for parcel in self._parcels:
            try:
                back.append(self._passing.put(parcel, passed=False))
            except Exception:  # a defect, which costs that one: the tunnels are to go on
                _log.exception("handover_defect")
        owner = self._tunnels.owner
        if owner is not None:
            for cid in self._dropped:  # before more of them is read
                owner.refuse(cid, Reason.OVERLOADED)
        if self._held:
            self._tunnels.go_on()
        owner = self._tunnels.owner
        if owner is not None:
            for flow in back:
                if not flow.closed:
                    owner.carry(flow)  # of what has come for it meanwhile nothing is here
        _log.error("upgrade_taken_back", reason=self._successor.lost, flows=len(self._parcels))
