"""The agent: dials targets for the flows that come through its tunnels, and keeps the flows while tunnels come and
go."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from ncfast.agent.dialer import DialError, client_context
from ncfast.agent.target import Target
from ncfast.agent.tunnel import AgentInfo
from ncfast.agent.tunnels import Tunnels
from ncfast.config import AgentConfig
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow, FlowContext
from ncfast.core.timeouts import Timeouts
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.seam import Net
from ncfast.observe import log

_log = log.get("agent")

TICK = 0.5  # seconds between looks at timers
TOKEN_CHECK = 2.0  # seconds between looks at the token file
TOKEN_RETRY = 30.0  # seconds before a token that the hub refused is shown again: its keys may have been out of reach


class Agent:
    """`await run()` until `stop()`; survives the loss of its tunnels and of hubs."""

    def __init__(self, config: AgentConfig, net: Net) -> None:
        self.config = config
        self.net = net
        self.instance = net.entropy(16).hex()
        self.context = FlowContext(
            net.clock,
            budget=config.limits.memory_bytes,
            window_initial=config.flow.window_initial,
            window_max=config.flow.window_max,
            seed=int.from_bytes(net.entropy(8)),
        )
        self.context.owner = self
        self.receive_buffer = ReceiveBuffer()
        self.tls_context = client_context(config.tls)
        self.targets = {connector.name: Target(self, connector) for connector in config.connectors}
        self.flows = self.context.flows
        self.tunnels = Tunnels(self)
        self.stopping = asyncio.Event()
        flow = config.flow
        self.timeouts = Timeouts(
            open=flow.open_timeout_sec, grace=flow.grace_sec, half_close=flow.half_close_sec, stall=flow.stall_sec
        )

    # life

    async def run(self) -> None:
        """Connects, serves, reconnects, until `stop` is called; then lets open flows end within `drain.timeout_sec`."""
        for target in self.targets.values():
            self.net.spawn(target.watch(), "health")
        self.net.spawn(self._keep_time(), "timers")
        self.tunnels.start()
        await self.stopping.wait()
        await self._drain()
        await self.net.cancel_all()

    def stop(self) -> None:
        """Asks `run` to end."""
        self.stopping.set()

    async def _drain(self) -> None:
        for tunnel in self.tunnels.all():
            tunnel.goaway()
        _log.info("draining", flows=len(self.flows), timeout_sec=self.config.drain.timeout_sec)
        deadline = self.net.clock() + self.config.drain.timeout_sec
        # a flow's last bytes may still wait for its target when the flow is over
        while (self.flows or self.net.sockets > len(self.tunnels.all())) and self.net.clock() < deadline:
            await asyncio.sleep(0.05)
        for flow in list(self.flows.values()):
            flow.reset(Reason.DRAINING)
        await asyncio.sleep(0)
        self.tunnels.close("the agent stops")
        await asyncio.sleep(0.05)  # closing frames reach the kernel
        _log.info("stopped")

    # tokens

    async def read_token(self) -> str:
        """What the token file holds now. Raises DialError."""
        try:
            return (await self.net.loop.run_in_executor(None, Path(self.config.token_file).read_text)).strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise DialError(
                "token_file", f"cannot read token_file {self.config.token_file}: {type(exc).__name__}"
            ) from None

    async def refresh_token(self) -> None:
        """Shows the hubs a new token if the file has one; tunnels and flows stay."""
        if not self.tunnels.all():
            return
        try:
            token = await self.read_token()
        except DialError as exc:
            _log.warning("token_unreadable", detail=str(exc))
            return
        if token:
            for tunnel in self.tunnels.all():
                tunnel.show_token(token, TOKEN_RETRY)

    # time

    async def _keep_time(self) -> None:
        checked = self.net.clock()
        while True:
            await asyncio.sleep(TICK)
            try:
                await self._look_after_all()
                if self.net.clock() - checked >= TOKEN_CHECK:
                    checked = self.net.clock()
                    await self.refresh_token()
            except Exception:  # the timers of all flows hang on this loop
                _log.exception("timers_failed")

    async def _look_after_all(self) -> None:
        now, tunnel = self.net.clock(), self.config.tunnel
        for one in self.tunnels.all():
            one.link.tick(now, tunnel.ping_interval_sec, tunnel.ping_timeout_sec, self.config.flow.stall_sec)
        left = deque(self.flows.values())
        while left:
            for _ in range(min(256, len(left))):
                self._check(left.popleft(), now)
            await asyncio.sleep(0)

    def _check(self, flow: Flow[AgentInfo], now: float) -> None:
        reason = flow.check(now, self.timeouts)
        if reason is Reason.STALLED:
            if flow.attached:
                flow.path.fail(reason, "bytes were sent and not acknowledged")
        elif reason is not None and reason is not Reason.OPEN_TIMEOUT:  # the dial has a timer of its own
            flow.reset(reason)

    # connectors

    def served(self) -> list[str]:
        """Connectors to announce: those whose target is well, none while the agent stops."""
        if self.stopping.is_set():
            return []
        return sorted(name for name, target in self.targets.items() if target.healthy)

    def connectors_changed(self) -> None:
        """Tells the hubs what is served from now on."""
        for tunnel in self.tunnels.all():
            tunnel.announce()

    # flows

    def flow_refused(self, flow: Flow[AgentInfo], reason: Reason) -> bool:
        return False  # agents open no flows

    def flow_resumed(self, flow: Flow[AgentInfo]) -> None:
        """The flow goes on after it had lost its way, or by another."""
        flow.info.resumes += 1

    def flow_closed(self, flow: Flow[AgentInfo], reason: Reason) -> None:
        """The one place where a flow leaves the agent."""
        if self.flows.pop(flow.cid, None) is None:
            return
        log.access(
            cid=flow.cid.hex(),
            connector=flow.info.connector,
            bytes_in=flow.rcv_nxt,
            bytes_out=flow.snd_nxt,
            duration=round(self.net.clock() - flow.info.since, 6),
            resumes=flow.info.resumes,
            reason=reason.label,
        )
