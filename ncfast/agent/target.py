"""A connector at the agent: dials the target for each flow, and watches its health."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable

from ncfast.agent.connection import Connections
from ncfast.agent.ground import Ground
from ncfast.agent.health import WrongAnswer, probe
from ncfast.agent.info import AgentInfo
from ncfast.config.agent import Connector, Health
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.opening import Ends
from ncfast.net.connect import OUT_OF_DESCRIPTORS
from ncfast.net.proxyproto import build
from ncfast.net.seam import keep_alive
from ncfast.observe import log

_log = log.get("target")

YOUNG_SEC = 5.0  # until a connection has keepalive, which would ask first after a minute: most live for less than this


class Target(Connections):
    """One connector's service."""

    def __init__(self, ground: Ground, config: Connector, on_health: Callable[[], None]) -> None:
        """`on_health` is called when the target is no longer well, or well again."""
        super().__init__(ground, config, ground.context.budget.share())
        self.config = config
        self._on_health = on_health
        self.healthy = True

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

    def _proxy_header(self, client: Ends) -> bytes:
        version = self.config.proxy_protocol
        assert version != "off"
        host, port, local_host, local_port = client
        try:
            source, here = ipaddress.ip_address(host), ipaddress.ip_address(local_host)
        except ValueError:
            return build(version, None, None)
        if source.version != here.version:
            return build(version, None, None)
        return build(version, (host, port), (local_host, local_port))

    def _no_room(self, flow: Flow[AgentInfo]) -> None:
        self.ground.turn_away(flow.cid)
        flow.reset(Reason.OVERLOADED)

    def _failed(self, flow: Flow[AgentInfo], exc: OSError) -> None:
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
        config = self.config
        self.reached = False
        _log.warning("dial_failed", connector=config.name, target=str(config.target), reason=reason.label, **detail)
        if reason is Reason.OVERLOADED:
            self._no_room(flow)
        else:
            flow.reset(reason)

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
