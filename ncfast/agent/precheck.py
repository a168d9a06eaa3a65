"""An agent's way tried once, step by step, before it runs: each hub from its name to a HELLO, each target up to the
health dialogue.

To a hub it is a standby that claims nothing and leaves again (docs/protocol.md, 8.16): an agent of the
same id that runs keeps its tunnels and flows, for a hub has room for one tunnel more than an agent has itself. So one
hub is tried after the other, as several URLs may lead to one.
"""

from __future__ import annotations

import asyncio
import ssl
from email.utils import parsedate_to_datetime
from typing import NoReturn

from ncfast.agent.claims import claims_of, span
from ncfast.agent.dialer import DialError, Opening
from ncfast.agent.ground import Ground
from ncfast.agent.health import WrongAnswer, probe
from ncfast.agent.services import Services
from ncfast.agent.token import TokenFault, token_of
from ncfast.agent.tunnel import AgentTunnel, TunnelState
from ncfast.config.agent import AgentConfig, Connector, Health
from ncfast.core.errors import LocalError, Reason
from ncfast.net import reach
from ncfast.net.httpproxy import Proxy, ProxySettingError
from ncfast.net.proxyproto import build
from ncfast.net.seam import Net
from ncfast.observe.findings import Findings

# In the order of the table: name and connection are those of the proxy, if there is one.
HUB_STEPS = (*reach.STEPS, "proxy", "TLS", "upgrade", "token", "clock", "HELLO")
APART = 60.0  # seconds between two clocks that are borne: a hub bears 30 at most (`leeway_sec`), Date and way add some
CLOSING = 0.05  # seconds in which closing frames reach the kernel

# The step that a dial ended at, by the reason of its DialError; any other says it by the opening's own step.
_ENDED_AT = {
    "name": "DNS",
    "refused": "TCP",
    "no_route": "TCP",
    "unreachable": "TCP",
    "out_of_descriptors": "TCP",
    "proxy": "proxy",
    "certificate": "TLS",
    "tls": "TLS",
    "not_a_hub": "upgrade",
    "no_upgrade": "upgrade",
    "http_401": "token",
}
_REMEDIES = {  # for what is not said with the error itself
    "proxy": "ask whoever runs the proxy to let CONNECT to the hub through; http_proxy: off goes without",
    "certificate": "see tls.ca_file",
    "tls": "does the hub, or what stands before it, have a version of TLS in common with us (1.2 or later)?",
    "timeout": "something took the connection and does not answer: a firewall that looks inside, or a hub that hangs",
    "closed": "somebody took the connection and closed it: is there a hub behind the balancer?",
    "not_a_hub": "something else answers there: host, port, or a captive portal",
    "no_upgrade": "the ingress has to pass Upgrade and Connection on, over HTTP/1.1",
    "http_401": "the hub's log has auth_failed with the reason; make a new token, or compare the keys",
    "http_403": "the agent is locked out (ncfast agents at the hub), or the ingress forbids it",
    "http_404": "the URL ends in /tunnel, and the ingress has to route that",
    "http_429": "it comes too fast; try again in a moment",
    "http_503": "the hub drains, is full, or cannot check tokens at the moment: its /readyz says more",
}
_REMEDY = "docs/operations.md, why an agent does not connect"


async def precheck(config: AgentConfig, net: Net) -> Findings:
    """Tries all of it, within the timeouts of the file. Raises OSError for a certificate that cannot be read."""
    findings = Findings()
    ground = Ground(config, net)
    token = _token(ground, findings)
    for url in config.hubs:
        await _Hub(ground, findings, url, token).go()
    found = [Findings() for _ in config.connectors]
    await asyncio.gather(*(_target(net, one, of) for of, one in zip(found, config.connectors, strict=True)))
    findings.rows += [row for of in found for row in of.rows]
    await asyncio.sleep(CLOSING)
    return findings


def _token(ground: Ground, findings: Findings) -> str:
    """What the file holds, and what that says of itself; empty if it is none."""
    config = ground.config
    try:
        token = token_of(config.token_file)
    except TokenFault as exc:
        findings.failed("token_file", "token", str(exc), "put one token into the file, and nothing else")
        return ""
    claims, now = claims_of(token), ground.wall_clock()
    if claims is None:
        findings.skipped("token_file", ("token",), "no JWT; only the hub can read it")
    elif fault := claims.fault(config.agent_id, now):
        remedy = f"have a token made for {config.agent_id}, and put it in place by a rename"
        findings.failed("token_file", "token", f"the token {fault}", remedy)
    else:
        left = f", ends in {span(claims.expires_at - now)}" if claims.expires_at is not None else ""
        findings.passed("token_file", "token", f"sub is {claims.subject}{left}")
    return token


class _Hub:
    """The way to one hub. What is passed is told when a later step is reached, as one dial takes them all."""

    def __init__(self, ground: Ground, findings: Findings, url: str, token: str) -> None:
        self._ground = ground
        self._findings = findings
        self._url = url
        self._visitor = _Visitor(ground.net.loop)
        self._tunnel = AgentTunnel(ground, Services(ground), self._visitor, url)
        self._token = token
        self._opening = Opening(ground, url, token, self._tunnel)
        self._proxy: Proxy | None = None

    async def go(self) -> None:
        config, opening, findings, url = self._ground.config, self._opening, self._findings, self._url
        timeout = config.reconnect.connect_timeout_sec
        try:
            self._proxy = opening.proxy()
        except ProxySettingError as exc:
            findings.skipped(url, reach.STEPS)
            findings.failed(url, "proxy", str(exc), "http_proxy in the file, or HTTPS_PROXY in the environment")
            findings.skipped(url, HUB_STEPS[3:])
            return
        host = opening.host if self._proxy is None else self._proxy.host
        if not await reach.look_up(self._ground.net, findings, url, host, timeout, "hub"):
            findings.skipped(url, HUB_STEPS[1:])
        elif not self._token:
            findings.skipped(url, HUB_STEPS[1:], "there is no token to show")
        else:
            try:
                await opening.dial()
            except DialError as exc:
                await self._refused(exc)
            else:
                self._dialled("token")
                findings.passed(url, "token", "taken")
                self._clock()
                await self._greet(timeout)

    # the dial

    async def _refused(self, exc: DialError) -> None:
        findings, url = self._findings, self._url
        step = _ENDED_AT.get(exc.reason) or self._opening.step.value
        if exc.reason == "timeout" and self._opening.transport is None and not await self._connects():
            findings.skipped(url, HUB_STEPS[2:])
            return
        self._dialled(step)
        text = exc.text.removeprefix(f"{url}: ")
        findings.failed(url, step, text, exc.remedy or _REMEDIES.get(exc.reason, _REMEDY))
        later = HUB_STEPS[HUB_STEPS.index(step) + 1 :]
        if self._opening.upgrade.headers:  # a clock that is wrong may be the reason
            findings.skipped(url, [one for one in later if one == "token"])
            self._clock()
            later = ("HELLO",)
        findings.skipped(url, later)

    async def _connects(self) -> bool:
        """Whether it is TCP that is not answered; what is told of it is the failure alone."""
        opening, net, found = self._opening, self._ground.net, Findings()
        host, port = (opening.host, opening.port) if self._proxy is None else (self._proxy.host, self._proxy.port)
        timeout = self._ground.config.reconnect.connect_timeout_sec
        connects = await reach.connect(net, found, self._url, host, port, timeout, "hub")
        if not connects:
            self._findings.rows += found.rows
        return connects

    def _dialled(self, until: str) -> None:
        """Tells of the steps before `until`, which one dial has taken; the name has been told."""
        opening, findings, url = self._opening, self._findings, self._url
        for step in HUB_STEPS[1 : HUB_STEPS.index(until)]:
            if step == "TCP":
                findings.passed(url, step, self._place())
            elif step == "proxy" and self._proxy is not None:
                findings.passed(url, step, f"{self._proxy.host}:{self._proxy.port} lets us through")
            elif step == "proxy":
                findings.skipped(url, (step,), "none")
            elif step == "TLS" and not opening.secure:
                findings.skipped(url, (step,), "ws:// has none")
            else:
                findings.passed(url, step, self._tls() if step == "TLS" else "")

    def _place(self) -> str:
        where = self._opening.transport and self._opening.transport.get_extra_info("peername")
        return f"{where[0]}, port {where[1]}" if where else ""

    def _tls(self) -> str:
        connection = self._opening.transport.get_extra_info("ssl_object")
        certificate = connection.getpeercert() or {}
        names = ", ".join(value for _, value in certificate.get("subjectAltName", ()))
        ends = ssl.cert_time_to_seconds(certificate["notAfter"]) - self._ground.wall_clock()
        return f"{connection.version()}, certificate for {names or 'no name'}, ends in {span(ends)}"

    def _clock(self) -> None:
        """Our clock beside the hub's, or beside that of the ingress which answered."""
        try:
            hubs = parsedate_to_datetime(self._opening.upgrade.headers["Date"]).timestamp()
        except (KeyError, ValueError):
            self._findings.skipped(self._url, ("clock",), "the answer has no Date")
            return
        ahead = self._ground.wall_clock() - hubs
        if abs(ahead) > APART:
            where = "ahead of" if ahead > 0 else "behind"
            text = f"this machine's clock is {span(abs(ahead))} {where} the hub's"
            self._findings.failed(self._url, "clock", text, "set both by NTP; tokens and certificates are judged by it")
        else:
            self._findings.passed(self._url, "clock", f"within {max(1, round(abs(ahead)))} s of the hub's")

    # HELLO

    async def _greet(self, timeout: float) -> None:
        tunnel, findings, url = self._tunnel, self._findings, self._url
        tunnel.greet(timeout)
        fault = await self._visitor.answered
        if fault:
            remedy = "the hub's log has more of it (identity_mismatch, agent_disconnected); sub has to be agent_id"
            findings.failed(url, "HELLO", fault, remedy)
            return
        tunnel.close("it was a check")
        if tunnel.refused:
            text = f"the token does not name {', '.join(tunnel.refused)}"
            findings.failed(url, "HELLO", text, "ask for a token whose claim connectors has them")
        else:
            findings.passed(url, "HELLO", f"known to {tunnel.replica_id}, which owns nothing of ours by it")


class _Visitor:
    """Keeper of a tunnel that greets, and leaves when it has been answered."""

    last_epoch = 0

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answered: asyncio.Future[str] = loop.create_future()  # what is wrong, or nothing

    def standing(self, tunnel: AgentTunnel) -> None:
        self.answered.set_result("")

    def ended(self, tunnel: AgentTunnel, state: TunnelState, lasted: float, reason: Reason, detail: str) -> None:
        if not self.answered.done():
            self.answered.set_result(f"{reason.label}: {detail}" if detail else reason.label)

    def told_again(self, tunnel: AgentTunnel) -> None: ...
    def leaving(self, tunnel: AgentTunnel) -> None: ...
    def asked_to_move(self, tunnel: AgentTunnel, replica_id: str) -> None: ...
    def outdated(self, tunnel: AgentTunnel, epoch: int) -> None: ...
    def left(self, tunnel: AgentTunnel, cid: bytes) -> None: ...

    alone = True  # no flow is here

    def next_claim(self) -> NoReturn:
        raise LocalError("a check claims nothing")

    def granted(self, tunnel: AgentTunnel) -> NoReturn:
        raise LocalError("a check claims nothing")


async def _target(net: Net, connector: Connector, findings: Findings) -> None:
    target, health, timeout = connector.target, connector.health, connector.dial_timeout_sec
    subject = f"{connector.name} at {target}"
    if not await reach.look_up(net, findings, subject, target.host, timeout, "target"):
        findings.skipped(subject, ("TCP", "health"))
    elif health is not None and not health.is_connect:
        await _talk(net, connector, health, findings, subject)
    else:
        connects = await reach.connect(net, findings, subject, target.host, target.port, timeout, "target")
        findings.skipped(
            subject, ("health",), "the file asks for no more than a connect" if connects else "not reached"
        )


async def _talk(net: Net, connector: Connector, health: Health, findings: Findings, subject: str) -> None:
    """On one connection: there are services that take one without a word for an attack."""
    port = f"port {connector.target.port}"
    header = b"" if connector.proxy_protocol == "off" else build(connector.proxy_protocol, None, None)
    try:
        await probe(net, connector.target, health, header)
    except WrongAnswer as exc:
        findings.passed(subject, "TCP", port)
        findings.failed(subject, "health", str(exc), "is it that service, and is proxy_protocol what it expects?")
    except OSError as exc:
        findings.failed(subject, "TCP", f"{port}: {reach.words(exc, health.timeout_sec)}", reach.remedy(exc))
        findings.skipped(subject, ("health",))
    else:
        findings.passed(subject, "TCP", port)
        findings.passed(subject, "health", health.protocol)
