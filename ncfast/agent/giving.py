"""The predecessor's side of an upgrade: all that is here passes to another process of this agent, its successor.

The successor is the same agent process to a hub: it has our `instance`, and claims above all that we have claimed. In
order:

 1. `heritage`: who we are, where our owner is, how well targets are; and the listening sockets. The successor dials
    that hub up to the end of the handshake, says no HELLO, and answers `dialled`, or that there is no hub now. Until
    then nothing has changed here.
 2. We look at nothing more that comes by tunnels, and give up dials of targets under way without a word: what the hub
    has sent us meanwhile it sends again to the successor, and opens it again.
 3. Every flow is taken off its socket and passed (`flows`), those of which something is under way first, then `commit`
    with the last epoch that we know of, and with the flows that ended lately. In that order they go on there.
 4. The successor says `taken` before it does anything with them, and claims. Our tunnels are closed when it owns, or
    after `LEAVES`, so that the hub sees a newer claim, and at no time an agent that has left. `over`: nothing is left
    but sockets that linger over their last bytes, which end here.

All is ours until it is `taken`. If the successor goes before that, we put the flows under their sockets again, refuse
the opens that we had given up, and go on with the tunnels that we have. For `taken` we wait as long as it lives: who
has the flows must not be in doubt. If it goes between `taken` and its claim, the flows have ended with it, and we are
an agent that has just started.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ncfast.agent.info import AgentInfo
from ncfast.agent.passing import Agent, Passing
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.handover import export
from ncfast.net.channel import MAX_FDS, Channel, Message
from ncfast.net.handover import HandoverFailed, pass_doors
from ncfast.net.parcel import Parcel, packed
from ncfast.observe import log

_log = log.get("upgrade")

BATCH_BYTES = 1 << 20  # of a message, about: what is kept for replay is most of it
LEAVES = 10.0  # seconds for the successor to own the agent, before our tunnels end all the same
LOOK = 0.005  # seconds between two looks


class Giving:
    """One hand-over."""

    role = "giving"

    def __init__(self, agent: Agent, channel: Channel) -> None:
        self._agent = agent
        self._ground = agent.ground
        self._tunnels = agent.tunnels
        self._net = agent.net
        self._channel = channel
        self._passing = Passing(agent.ground, agent.services)
        self._heard: set[str] = set()
        self._lost = ""
        self._changed = asyncio.Event()
        self._held = self._taken = False  # our tunnels; our flows, by the successor
        self._parcels: list[Parcel] = []
        self._dropped: list[bytes] = []  # cids of opens that we have given up
        self._passed = 0
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
        channel = self._channel
        channel.on_message, channel.on_closed = self._hear, self._lose
        pass_doors(self._net, channel)
        channel.send("heritage", self._heritage())
        self._net.hold_doors(True)  # who asks how the agent is waits until the successor answers
        seconds = self._ground.config.upgrade.timeout_sec
        if not await self._until("dialled", seconds):
            raise HandoverFailed(self._lost or f"it did not serve within {seconds:g} s (upgrade.timeout_sec)")
        self._tunnels.hold()
        self._held = True
        await asyncio.sleep(0)  # connections that have just ended say so to their flows
        stopped = self._net.clock()
        self._take_off()
        await self._send()
        if not await self._until("taken"):
            raise HandoverFailed(self._lost)
        self._taken = True
        for parcel in self._parcels:
            parcel.close()
        self._passed = len(self._parcels)
        _log.info(
            "upgrade_passed",
            passed=self._passed,
            pause_ms=round((self._net.clock() - stopped) * 1000, 3),
            duration_sec=round(self._net.clock() - self._begun_at, 3),
        )
        if not await self._until("owner", LEAVES) and self._lost:
            raise HandoverFailed(self._lost)
        self._tunnels.close("another process of this agent goes on")
        channel.send("over", {})

    def _heritage(self) -> dict[str, Any]:
        return {
            "instance": self._ground.instance,
            "flows": len(self._ground.flows),
            "sockets": self._net.sockets,
            "down": [name for name, one in self._agent.services.targets.items() if not one.healthy],
            **self._tunnels.heritage(),
        }

    def _take_off(self) -> None:
        """All flows, but those whose target is not connected: they are none yet."""
        flows: list[Flow[AgentInfo]] = list(self._ground.flows.values())
        for flow in flows:
            if flow.info.connecting is not None:
                flow.info.connecting.give_up()
                self._dropped.append(flow.cid)
                export(flow)
        left = [flow for flow in flows if not flow.closed]
        left.sort(key=lambda one: (not (one.backlog or one.snd_nxt > one.snd_una), -one.since))
        for flow in left:
            parcel = self._passing.off(flow)
            if parcel is None:
                flow.reset(Reason.TARGET_RESET)  # as it is about to be
            else:
                self._parcels.append(parcel)

    async def _send(self) -> None:
        batch: list[Parcel] = []
        size = 0
        for parcel in self._parcels:
            batch.append(parcel)
            size += len(parcel.record) + len(parcel.unsent)
            if len(batch) == MAX_FDS or size >= BATCH_BYTES:
                self._say(batch)
                batch, size = [], 0
                await self._channel.drained()
        self._say(batch)
        flows = len(self._parcels)
        commit = {"last_epoch": self._tunnels.last_epoch, "said": self._tunnels.next_claim(), "flows": flows}
        self._channel.send("commit", commit, self._ground.context.closed.pack())

    def _say(self, batch: list[Parcel]) -> None:
        if batch:
            heads, payload, fds = packed(batch)
            self._channel.send("flows", {"heads": heads}, payload, fds, kept=True)

    def take_back(self) -> None:
        """The successor is dead, so that no flow is at both: what it has not taken is here."""
        self._net.hold_doors(False)
        if self._taken:
            self._start_anew()
        elif self._held:
            self._put_back()

    def _start_anew(self) -> None:
        """The successor has gone with all flows: what is left is an agent without any, and hubs are to know."""
        for tunnel in self._tunnels.all():
            tunnel.close("the process that had taken over has gone")
        self._ground.instance = self._net.entropy(16).hex()
        self._tunnels.go_on()

    def _put_back(self) -> None:
        """The successor has gone without our flows."""
        for parcel in self._parcels:
            try:
                self._passing.put(parcel, passed=False)
            except Exception:  # a defect, which costs that one: the tunnels are to go on
                _log.exception("handover_defect")
        owner = self._tunnels.owner
        if owner is not None:
            for cid in self._dropped:  # before more of them is read
                owner.refuse(cid, Reason.OVERLOADED)
        self._tunnels.go_on()
        owner = self._tunnels.owner
        if owner is not None:
            for flow in list(self._ground.flows.values()):
                owner.carry(flow)
        _log.error("upgrade_taken_back", reason=self._lost, flows=len(self._parcels))

    # the successor

    async def _until(self, kind: str, seconds: float | None = None) -> bool:
        """Whether it has said so, within that time and before it is gone."""
        try:
            async with asyncio.timeout(seconds):
                while kind not in self._heard and not self._lost:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return kind in self._heard

    def _hear(self, message: Message) -> None:
        message.close()
        if message.kind == "failed":
            self._lost = str(message.body.get("reason"))
        self._heard.add(message.kind)
        self._changed.set()

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._changed.set()
