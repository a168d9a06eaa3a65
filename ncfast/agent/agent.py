"""The agent: dials targets for the flows that come through its tunnels, and keeps the flows while tunnels come and
go."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ncfast.agent.closing import Closing
from ncfast.agent.giving import Giving
from ncfast.agent.ground import Ground
from ncfast.agent.info import AgentInfo
from ncfast.agent.services import Services
from ncfast.agent.taking import Heritage, Taking
from ncfast.agent.token import OwnToken, TokenFault
from ncfast.agent.tunnels import Tunnels
from ncfast.config.agent import AgentConfig
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.timeouts import STOOD_STILL
from ncfast.net.channel import Channel
from ncfast.net.seam import Net
from ncfast.observe import log

_log = log.get("agent")

TICK = 0.5  # seconds between looks at timers
SLICE = 64  # flows looked at in one go
FILES_CHECK = 2.0  # seconds between looks at token and certificates
TOKEN_RETRY = 30.0  # seconds before a token that the hub refused is shown again: its keys may have been out of reach


class Agent:
    """`await run()` until `stop()`; survives the loss of its tunnels and of hubs."""

    def __init__(
        self,
        config: AgentConfig,
        net: Net,
        wall_clock: Callable[[], float] = time.time,
        heritage: Heritage | None = None,
    ) -> None:
        """`heritage`: what a predecessor has told of itself. Raises OSError when a certificate cannot be read."""
        self.ground = Ground(config, net, wall_clock)
        self.ground.context.owner = self
        self.net = net
        self.flows = self.ground.flows
        self._closing = Closing(self.ground)
        self.services = Services(self.ground)
        self.token = OwnToken(self.ground)
        self.tunnels = Tunnels(self.ground, self.services, self.token)
        self.services.on_changed = self.tunnels.announce
        self._token_fault = ""  # of the token file, as it was told last
        self._taking = None if heritage is None else Taking(self, heritage)
        self._giving: Giving | None = None

    # life

    async def run(self) -> None:
        """Connects, serves, reconnects, until `stop` is called; then lets open flows end within `drain.timeout_sec`."""
        self.start()
        await self.ground.stopping.wait()
        await self.drain()

    def start(self) -> None:
        """Connects, and serves; a successor when it has been given everything."""
        self.services.start()
        self.net.spawn(self._keep_time(), "timers")
        if self._taking is None:
            self.tunnels.start()

    async def hand_over(self, channel: Channel) -> None:
        """Passes everything to the process at the other end of the channel. Raises HandoverFailed when that is gone
        before it has said that it has it; then this one goes on."""
        self._bring_all()
        self._giving = Giving(self, channel)
        await self._giving.give()

    def upgrade(self) -> dict[str, Any] | None:
        """How far one is, while it is under way."""
        if self._giving is not None:
            return self._giving.snapshot()
        return self._taking.snapshot() if self._taking is not None and not self._taking.over else None

    def _bring_all(self) -> None:
        """What a predecessor has passed to us is under its sockets."""
        if self._taking is not None:
            self._taking.bring_all()

    def upgrade_failed(self) -> None:
        """This process goes on, with what its successor, which is dead, had not taken."""
        if self._giving is not None:
            self._giving.take_back()
            self._giving = None
        self.ground.counts.handovers["failed"] += 1

    def take_over(self, channel: Channel) -> None:
        """Takes what a predecessor passes."""
        assert self._taking is not None
        self._taking.listen(channel)

    async def linger(self) -> None:
        """After `hand_over`, until no target's socket is left that lingers over its last bytes, within
        `drain.timeout_sec`."""
        deadline = self.net.clock() + self.ground.config.drain.timeout_sec
        while self.net.sockets > 0 and self.net.clock() < deadline:
            await asyncio.sleep(0.05)
        await self.net.cancel_all()

    def stop(self) -> bool:
        """Asks `run` to end. False: it was asked before."""
        news = not self.ground.stopping.is_set()
        self.ground.stopping.set()
        return news

    async def drain(self) -> None:
        """Lets open flows end within `drain.timeout_sec`, and closes everything."""
        self._bring_all()
        for tunnel in self.tunnels.all():
            tunnel.goaway()
        _log.info("draining", flows=len(self.flows), timeout_sec=self.ground.config.drain.timeout_sec)
        now = self.net.clock()
        deadline = now + self.ground.config.drain.timeout_sec
        crossed = now + 2 * max((tunnel.link.rtt for tunnel in self.tunnels.all()), default=0.0)  # opens, by GOAWAY
        # a flow's last bytes may still wait for its target when the flow is over
        while (self.flows or self.net.sockets > len(self.tunnels.all()) or now < crossed) and now < deadline:
            await asyncio.sleep(0.05)
            now = self.net.clock()
        for flow in list(self.flows.values()):
            flow.reset(Reason.DRAINING)
        await asyncio.sleep(0)
        self.tunnels.close("the agent stops")
        await asyncio.sleep(0.05)  # closing frames reach the kernel
        _log.info("stopped")
        await self.net.cancel_all()

    # files

    async def refresh(self) -> None:
        """Looks at the files that were replaced; tunnels and flows stay."""
        await self.ground.trust.refresh()
        await self._refresh_token()

    async def _refresh_token(self) -> None:
        """Shows the hubs a new token if the file has one; tunnels and flows stay."""
        if not self.tunnels.all():
            return
        try:
            token = await self.token.read()
        except TokenFault as exc:
            if str(exc) != self._token_fault:
                self._token_fault = str(exc)
                _log.warning("token_unreadable", detail=str(exc))
            return
        self._token_fault = ""
        for tunnel in self.tunnels.all():
            tunnel.show_token(token, TOKEN_RETRY)

    # time

    async def _keep_time(self) -> None:
        checked = self.net.clock()
        while True:
            due = self.net.clock() + TICK
            await asyncio.sleep(TICK)
            try:
                await self._look_after_all(self.net.clock() - due >= STOOD_STILL)
                if self.net.clock() - checked >= FILES_CHECK:
                    checked = self.net.clock()
                    await self.refresh()
            except Exception:  # the timers of all flows hang on this loop
                _log.exception("timers_failed")

    async def _look_after_all(self, late: bool) -> None:
        """`late`: we have stood still, and what came meanwhile is yet to be read; flows are judged by the next look."""
        now = self.net.clock()
        for one in self.tunnels.all():
            one.tick(now)
        self.services.look_after(now)
        left = deque(() if late else self.ground.context.due(now))
        while left:
            for _ in range(min(SLICE, len(left))):
                self._check(left.popleft(), now)
            await asyncio.sleep(0)

    def _check(self, flow: Flow[AgentInfo], now: float) -> None:
        reason = flow.check(now, self.ground.timeouts)
        if reason is Reason.STALLED:
            if flow.attached:
                flow.path.fail(reason, "bytes were sent and not acknowledged")
        elif reason is not None and reason is not Reason.OPEN_TIMEOUT:  # the dial has a timer of its own
            flow.reset(reason)

    # flows

    def flow_refused(self, flow: Flow[AgentInfo], reason: Reason) -> bool:
        return False  # agents open no flows

    def flow_resumed(self, flow: Flow[AgentInfo]) -> None:
        """The flow goes on after it had lost its way, or by another."""
        info = flow.info
        info.resumes += 1
        if info.lost_at >= 0:
            pause, info.lost_at = self.net.clock() - info.lost_at, -1.0
            if self._taking is not None:
                self._taking.goes_on(pause)

    def flow_closed(self, flow: Flow[AgentInfo], reason: Reason) -> None:
        """The one place where a flow leaves the agent."""
        if self.flows.pop(flow.cid, None) is None:
            return
        self._closing.over(flow, reason)
        if flow.info.lost_at >= 0 and self._taking is not None:
            self._taking.goes_on()
