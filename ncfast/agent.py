"""The agent: holds a tunnel to a hub, and dials targets for the flows that come through it."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from ncfast import log
from ncfast._flow import Flow, FlowContext
from ncfast._frames import FrameType
from ncfast._link import Link
from ncfast._websocket import ReceiveBuffer
from ncfast.config import AgentConfig
from ncfast.dialer import DialError, client_context, dial
from ncfast.errors import Reason, RemoteError
from ncfast.messages import SOFTWARE, VERSION, Announce, Hello, HelloAck, Open
from ncfast.net import Net
from ncfast.target import Target
from ncfast.timeouts import Timeouts

_log = log.get("agent")

TICK = 0.5                     # seconds between looks at timers
TOKEN_CHECK = 2.0              # seconds between looks at the token file
TOKEN_RETRY = 30.0             # seconds before a token that the hub refused is shown again: its keys may have been out of reach
CONFLICT_DELAY = 30.0          # seconds to wait at least when another process took over under our id


class AgentInfo:
    """What the agent knows of a flow beside its bytes."""

    __slots__ = ("connector", "resumes", "since")

    def __init__(self, connector: str, since: float) -> None:
        self.connector = connector
        self.since = since
        self.resumes = 0


class Agent:
    """`await run()` until `stop()`; survives the loss of its tunnel and of hubs."""

    def __init__(self, config: AgentConfig, net: Net) -> None:
        self.config = config
        self.net = net
        self.instance = net.entropy(16).hex()
        self.last_epoch = 0
        self.context = FlowContext(net.clock, budget=config.limits.memory_bytes, window_initial=config.flow.window_initial,
                                   window_max=config.flow.window_max, seed=int.from_bytes(net.entropy(8)))
        self.context.owner = self
        self.receive_buffer = ReceiveBuffer()
        self.tls_context = client_context(config.tls)
        self.targets = {connector.name: Target(self, connector) for connector in config.connectors}
        self.flows: dict[bytes, Flow] = {}
        self.tunnel: AgentTunnel | None = None
        self.stopping = asyncio.Event()
        flow = config.flow
        self.timeouts = Timeouts(open=flow.open_timeout_sec, grace=flow.grace_sec, half_close=flow.half_close_sec, stall=flow.stall_sec)
        self._token = ""
        self._token_refused_at: float | None = None
        self._next_hub = 0

    # life

    async def run(self) -> None:
        """Connects, serves, reconnects, until `stop` is called; then lets open flows end within `drain.timeout_sec`."""
        for target in self.targets.values():
            self.net.spawn(target.watch(), "health")
        self.net.spawn(self._keep_time(), "timers")
        connecting = self.net.spawn(self._stay_connected(), "tunnel")
        await self.stopping.wait()
        await self._drain(connecting)
        await self.net.cancel_all()

    def stop(self) -> None:
        """Asks `run` to end."""
        self.stopping.set()

    async def _drain(self, connecting: asyncio.Task[None]) -> None:
        if self.tunnel is not None:
            self.tunnel.link.send(FrameType.GOAWAY, code=Reason.DRAINING)
        _log.info("draining", flows=len(self.flows), timeout_sec=self.config.drain.timeout_sec)
        deadline = self.net.clock() + self.config.drain.timeout_sec
        while self.flows and self.net.clock() < deadline:
            await asyncio.sleep(0.05)
        connecting.cancel()
        for flow in list(self.flows.values()):
            flow.reset(Reason.DRAINING)
        await asyncio.sleep(0)
        if self.tunnel is not None:
            self.tunnel.link.fail(Reason.GOING_AWAY, "the agent stops")
            await asyncio.sleep(0.05)
        _log.info("stopped")

    async def _stay_connected(self) -> None:
        """One tunnel at a time; full jitter between attempts, so that the agents of a lost hub do not come back as one."""
        reconnect = self.config.reconnect
        bound = reconnect.min_sec
        while True:
            url = self.config.hubs[self._next_hub % len(self.config.hubs)]
            least = 0.0
            try:
                tunnel = await self._connect(url)
            except DialError as exc:
                self._next_hub += 1
                least = exc.retry_after or 0.0
                _log.warning("connect_failed", hub=url, reason=exc.reason, detail=str(exc))
            except Exception:          # a defect must not leave the agent alive and away for ever
                self._next_hub += 1
                _log.exception("connect_failed", hub=url, reason="internal")
            else:
                reason = await tunnel.ended
                if tunnel.up:
                    bound = reconnect.min_sec
                else:
                    self._next_hub += 1
                if reason is Reason.SUPERSEDED:
                    least = min(CONFLICT_DELAY, reconnect.max_sec)
                elif reason is Reason.GOING_AWAY:
                    self._next_hub += 1
            delay = max(least, self.net.rng.uniform(0, bound))
            bound = min(bound * 2, reconnect.max_sec)
            await asyncio.sleep(delay)

    async def _connect(self, url: str) -> AgentTunnel:
        self._token = await self._read_token()
        tunnel = AgentTunnel(self, url)
        tunnel.link = await dial(self, url, self._token, tunnel)
        tunnel.begin()
        return tunnel

    async def _read_token(self) -> str:
        try:
            return (await self.net.loop.run_in_executor(None, Path(self.config.token_file).read_text)).strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise DialError("token_file", f"cannot read token_file {self.config.token_file}: {type(exc).__name__}") from None

    async def refresh_token(self) -> None:
        """Shows the hub a new token if the file has one; the tunnel and its flows stay."""
        tunnel = self.tunnel
        if tunnel is None:
            return
        try:
            token = await self._read_token()
        except DialError as exc:
            _log.warning("token_unreadable", detail=str(exc))
            return
        again = self._token_refused_at is not None and self.net.clock() - self._token_refused_at >= TOKEN_RETRY
        if token and (token != self._token or again) and self.tunnel is tunnel:
            self._token = token
            self._token_refused_at = None
            tunnel.link.send(FrameType.AUTH, token.encode())

    def token_refused(self) -> None:
        """The hub did not take the token that `refresh_token` showed it."""
        self._token_refused_at = self.net.clock()

    async def _keep_time(self) -> None:
        checked = self.net.clock()
        while True:
            await asyncio.sleep(TICK)
            try:
                await self._look_after_all()
                if self.net.clock() - checked >= TOKEN_CHECK:
                    checked = self.net.clock()
                    await self.refresh_token()
            except Exception:          # the timers of all flows hang on this loop
                _log.exception("timers_failed")

    async def _look_after_all(self) -> None:
        now, tunnel = self.net.clock(), self.config.tunnel
        if self.tunnel is not None:
            self.tunnel.link.tick(now, tunnel.ping_interval_sec, tunnel.ping_timeout_sec, self.config.flow.stall_sec)
        left = deque(self.flows.values())
        while left:
            for _ in range(min(256, len(left))):
                self._check(left.popleft(), now)
            await asyncio.sleep(0)

    def _check(self, flow: Flow, now: float) -> None:
        reason = flow.check(now, self.timeouts)
        if reason is Reason.STALLED:
            if flow.attached:
                flow.path.fail(reason, "bytes were sent and not acknowledged")
        elif reason is not None and reason is not Reason.OPEN_TIMEOUT:     # the dial has a timer of its own
            flow.reset(reason)

    # connectors

    def served(self) -> list[str]:
        """Connectors whose target is well."""
        return sorted(name for name, target in self.targets.items() if target.healthy)

    def connectors_changed(self) -> None:
        """Tells the hub what is served from now on."""
        if self.tunnel is not None and self.tunnel.up:
            self.tunnel.link.send(FrameType.ANNOUNCE, Announce(connectors=self.served()).pack())

    # flows

    def flow_refused(self, flow: Flow, reason: Reason) -> bool:
        return False                                   # agents open no flows

    def flow_closed(self, flow: Flow, reason: Reason) -> None:
        """The one place where a flow leaves the agent."""
        if self.flows.pop(flow.cid, None) is None:
            return
        log.access(cid=flow.cid.hex(), connector=flow.info.connector, bytes_in=flow.rcv_nxt, bytes_out=flow.snd_nxt,
                   duration=round(self.net.clock() - flow.info.since, 6), resumes=flow.info.resumes, reason=reason.label)


class AgentTunnel:
    """Handler of a tunnel's frames at the agent."""

    def __init__(self, agent: Agent, url: str) -> None:
        self.agent = agent
        self.url = url
        self.up = False
        self.link: Link = None                         # set when the dial is done
        self.ended: asyncio.Future[Reason] = agent.net.loop.create_future()

    def begin(self) -> None:
        """Says HELLO."""
        agent = self.agent
        self.link.send(FrameType.HELLO, Hello(
            version=VERSION, agent_id=agent.config.agent_id, instance=agent.instance,
            connectors=[] if agent.stopping.is_set() else agent.served(),
            last_epoch=agent.last_epoch, window=agent.context.window_initial, software=SOFTWARE).pack())
        agent.net.call_later(agent.config.reconnect.connect_timeout_sec, self._late)

    def _late(self) -> None:
        if not self.up and not self.link.closed:
            self.link.fail(Reason.HANDSHAKE_TIMEOUT, "no HELLO_ACK")

    def _on_frame__hello_ack(self, body: bytes) -> None:
        agent = self.agent
        if self.up:
            self.link.fail(Reason.PROTOCOL_ERROR, "a second HELLO_ACK")
            return
        try:
            ack: HelloAck = HelloAck.unpack(body)
        except RemoteError as exc:
            self.link.fail(exc.reason, exc.detail)
            return
        if ack.version != VERSION:
            self.link.fail(Reason.VERSION, f"hub speaks version {ack.version}")
            return
        if ack.epoch <= agent.last_epoch:
            self.link.fail(Reason.PROTOCOL_ERROR, "granted epoch is not above the last one")
            return
        agent.last_epoch = ack.epoch
        self.link.establish(ack.epoch)
        self.up = True
        agent.tunnel = self
        _log.info("tunnel_up", hub=self.url, agent_id=agent.config.agent_id, epoch=ack.epoch, session=ack.session,
                  replica=ack.replica_id, flows=len(agent.flows))
        for flow in list(agent.flows.values()):
            self.link.add(flow)
            if not flow.opening:
                flow.info.resumes += 1
            flow.attach(self.link, resumed=False)
        if agent.stopping.is_set():
            self.link.send(FrameType.GOAWAY, code=Reason.DRAINING)
        self.link.ping()

    def _on_frame__open(self, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        agent = self.agent
        if cid in agent.flows:
            return                                     # sent again after a cut; we have it
        if agent.context.closed.last(cid) is not None:
            self.link.refuse(cid, Reason.LINK_LOST)    # we had it, it ended while the tunnel was cut
            return
        try:
            request: Open = Open.unpack(body)
        except RemoteError as exc:
            self.link.fail(exc.reason, exc.detail)
            return
        target = agent.targets.get(request.connector)
        if target is None:
            self.link.refuse(cid, Reason.NO_SUCH_CONNECTOR)
            return
        if len(agent.flows) >= agent.config.limits.max_flows or agent.context.over_budget:
            self.link.refuse(cid, Reason.OVERLOADED)
            return
        flow = Flow(agent.context, cid, bytes.fromhex(request.secret), None, AgentInfo(request.connector, agent.net.clock()), limit)
        agent.flows[cid] = flow
        self.link.add(flow)
        flow.attach(self.link, resumed=True)
        target.open(flow, request)

    def _on_frame__resume(self, cid: bytes, epoch: int, secret: bytes, ack: int, limit: int) -> bool:
        flow = self.agent.flows.get(cid)
        if flow is None or flow.secret != secret:
            return False
        flow.resume(self.link, ack, limit, True)
        if flow.closed:
            return False
        self.link.add(flow)
        return True

    def _on_frame__goaway(self, reason: Reason) -> None:
        _log.info("hub_draining", hub=self.url, reason=reason.label)

    def _on_frame__auth(self, code: int, body: bytes) -> None:
        if code:
            self.agent.token_refused()
            _log.error("token_refused", hub=self.url)
        else:
            _log.info("token_refreshed", hub=self.url)

    def _on_frame__hello(self, body: bytes) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR, "HELLO is the agent's to send")

    def _on_frame__announce(self, body: bytes) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR, "ANNOUNCE is the agent's to send")

    def link_rtt(self, link: Link, seconds: float) -> None:
        """Nothing to count here; the link keeps it for its flows' windows."""

    def link_ended(self, link: Link, reason: Reason, detail: str) -> None:
        agent = self.agent
        if agent.tunnel is self:
            agent.tunnel = None
        _log.warning("tunnel_down", hub=self.url, reason=reason.label, detail=detail, flows=len(agent.flows))
        if not self.ended.done():
            self.ended.set_result(reason)
