"""A connector at the agent: dials the target for each flow, and watches its health."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from ncfast.agent.ground import Ground
from ncfast.agent.health import WrongAnswer, probe
from ncfast.agent.info import AgentInfo
from ncfast.config.agent import Connector, Health
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.opening import Opening
from ncfast.net.connect import OUT_OF_DESCRIPTORS
from ncfast.net.dial import Dial
from ncfast.net.proxyproto import build
from ncfast.net.seam import keep_alive
from ncfast.net.socket import SocketEnd
from ncfast.net.syscalls import Accepted
from ncfast.observe import log

_log = log.get("target")

YOUNG_SEC = 5.0  # until a connection has keepalive, which would ask first after a minute: most live for less than this


class Target:
    """One connector's service."""

    def __init__(self, ground: Ground, config: Connector, on_health: Callable[[], None]) -> None:
        """`on_health` is called when the target is no longer well, or well again."""
        self.ground = ground
        self.config = config
        # what each flow is asked for, out of the model: looking into one is slow
        self._place = (config.target.host, config.target.port)
        self._dial_timeout = config.dial_timeout_sec
        self._most = config.max_dials
        self._headed = config.proxy_protocol != "off"
        self._notsent_lowat = ground.config.flow.notsent_lowat
        self._on_health = on_health
        self.share = ground.context.budget.share()
        self.healthy = True
        self.dials = 0
        self.reached = False  # by the last dial, and there was one since the last check
        self.young: dict[Connection, Any] = {}  # whose transports have no keepalive yet, the oldest first

    def open(self, flow: Flow[AgentInfo], request: Opening) -> None:
        """Dials for a new flow; at `max_dials` at once it is refused, so that a flood of opens stays a few connects."""
        if self.dials >= self._most:
            flow.reset(Reason.OVERLOADED)
            return
        Connection(self, flow, self._proxy_header(request) if self._headed else b"").dial()

    def dial(self, done: Callable[[Accepted | OSError], None]) -> Dial:
        """Dials; `done` is called once, perhaps before this returns."""
        host, port = self._place
        self.dials += 1
        return self.ground.net.start_dial(host, port, done, timeout=self._dial_timeout, bare=True)

    def adopt(self, sock: Accepted, end: SocketEnd) -> None:
        """The connection stands."""
        net = self.ground.net
        net.opened()
        net.adopt_end(sock, end, self._notsent_lowat)

    def look_after(self, now: float) -> None:
        """Gives keepalive to connections that have become old enough for it."""
        while self.young:
            connection, transport = next(iter(self.young.items()))
            if now - connection.since < YOUNG_SEC:
                return
            del self.young[connection]
            sock = transport.get_extra_info("socket")
            if sock is not None:  # else it is closed, and its end is on its way to us
                keep_alive(sock)

    def _proxy_header(self, request: Opening) -> bytes:
        version = self.config.proxy_protocol
        assert version != "off"
        host, port, local_host, local_port = request.client
        try:
            source, here = ipaddress.ip_address(host), ipaddress.ip_address(local_host)
        except ValueError:
            return build(version, None, None)
        if source.version != here.version:
            return build(version, None, None)
        return build(version, (host, port), (local_host, local_port))

    async def watch(self) -> None:
        """Checks the target; `fall` failures withdraw the connector, `rise` successes announce it again."""
        health = self.config.health
        if health is None:
            return
        net, run = self.ground.net, 0
        while True:
            well = await self.check(health)
            if well is not None:
                run = run + 1 if well != self.healthy else 0
                if run >= (health.rise if well else health.fall):
                    run = 0
                    self._turn(well)
            await asyncio.sleep(health.interval_sec * net.rng.uniform(0.9, 1.1))

    def _turn(self, well: bool) -> None:
        self.healthy = well
        tell, event = (_log.info, "target_up") if well else (_log.warning, "target_down")
        tell(event, connector=self.config.name, target=str(self.config.target))
        self._on_health()

    async def check(self, health: Health) -> bool | None:
        """Whether the target is well; None if that could not be found out. A flow's dial tells all that a connect of
        our own would, and no more: who asks for an answer is not content with it."""
        reached, self.reached = self.reached, False
        if reached and health.is_connect:
            return True
        config = self.config
        header = b"" if config.proxy_protocol == "off" else build(config.proxy_protocol, None, None)
        try:
            await probe(self.ground.net, config.target, health, header)
        except WrongAnswer as exc:
            if self.healthy:  # and not as often as a target that is down is checked
                _log.warning(
                    "check_failed",
                    connector=config.name,
                    target=str(config.target),
                    expected=exc.expected,
                    got=exc.got,
                )
            return False
        except OSError as exc:
            if exc.errno not in OUT_OF_DESCRIPTORS:
                return False
            _log.warning("check_skipped", connector=config.name, target=str(config.target), detail="out of descriptors")
            return None
        return True


class Connection:
    """One flow's connection to its target, from the dial on."""

    __slots__ = ("_dial", "_flow", "_ground", "_header", "_target")

    def __init__(self, target: Target, flow: Flow[AgentInfo], header: bytes) -> None:
        self._target = target
        self._ground = target.ground
        self._flow = flow
        self._header = header
        self._dial: Dial | None = None  # while it is under way

    @property
    def since(self) -> float:
        """When the flow was opened."""
        return self._flow.info.since

    def dial(self) -> None:
        info = self._flow.info
        info.connecting = self
        dial = self._target.dial(self._dialled)
        if info.connecting is not None:  # else it has ended already
            self._dial = dial

    def give_up(self) -> None:
        """Ends the dial that is under way: the flow is over."""
        assert self._dial is not None
        self._dial.cancel()
        self._dial_over()

    def _dial_over(self) -> None:
        self._dial = self._flow.info.connecting = None
        self._target.dials -= 1  # before the hub hears of it, and sends the next

    def _dialled(self, outcome: Accepted | OSError) -> None:
        self._dial_over()
        if isinstance(outcome, OSError):
            self._failed(outcome)
            return
        ground = self._ground
        self._target.reached = True
        end = SocketEnd(ground.context, self, ground.net.call_later, Reason.TARGET_RESET, Reason.TARGET_LOST)
        self._target.adopt(outcome, end)

    def _failed(self, exc: OSError) -> None:
        detail = {}
        if isinstance(exc, TimeoutError):
            reason = Reason.TARGET_TIMEOUT
        elif isinstance(exc, ConnectionRefusedError):
            reason = Reason.TARGET_REFUSED
        elif exc.errno in OUT_OF_DESCRIPTORS:  # no word on the target; another agent may have room
            reason, detail = Reason.OVERLOADED, {"detail": "out of descriptors"}
        else:
            reason = Reason.TARGET_UNREACHABLE
            not_found = isinstance(exc, socket.gaierror)
            detail = {"detail": "the name is not found" if not_found else exc.strerror or type(exc).__name__}
        config = self._target.config
        self._target.reached = False
        _log.warning("dial_failed", connector=config.name, target=str(config.target), reason=reason.label, **detail)
        self._flow.reset(reason)

    def socket_ready(self, end: SocketEnd) -> None:
        self._target.young[self] = end.transport
        if self._flow.closed:  # the client was faster
            end.abort()
            return
        if self._header:
            end.transport.write(self._header)
        end.carry(self._flow)
        self._flow.accept()

    def socket_gone(self, end: SocketEnd) -> None:
        self._target.young.pop(self, None)
        self._ground.net.gone()
        if self._flow.opening:  # there is no transport for it
            self._flow.reset(Reason.TARGET_UNREACHABLE)
