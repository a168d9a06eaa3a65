"""What a configuration is allowed to say, and had better not."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from ncfast.config.agent import AgentConfig, is_plaintext
from ncfast.config.ha import Ha
from ncfast.config.hub import HubConfig
from ncfast.config.values import Address

KILLED_AFTER = 90  # seconds from SIGTERM to SIGKILL: systemd's own default, and what docs/operations.md sets elsewhere
NOTICED_WITHIN = 0.5  # seconds after a ping timeout within which it is seen: the hub's tick
MYSQL_PORT = 3306  # as registered with IANA
# Well-known ports (IANA) of protocols whose server speaks first.
SERVER_FIRST = {21: "FTP", 22: "SSH", 25: "SMTP", 110: "POP3", 143: "IMAP", 587: "SMTP", 3306: "MySQL", 5900: "VNC"}


def warnings(config: HubConfig | AgentConfig) -> list[str]:
    """What is allowed, but better known: one line each, ``key: text``."""
    own = _hub_warnings(config) if isinstance(config, HubConfig) else _agent_warnings(config)
    return [*own, *_collector_warnings(config)]


def _hub_warnings(config: HubConfig) -> Iterator[str]:
    if not config.listeners:
        yield "listeners: none, so no client can connect"
    if "edge" not in config.model_fields_set:
        yield f"edge: not in the file, so agents and ingress are awaited at {config.edge.bind}, on this machine alone"
    if not config.admin.bind.is_loopback:
        yield (f"admin.bind: {config.admin.bind} is not loopback; /metrics and /status ask for no password")
        if config.admin.token_file is not None and config.admin.tls is None:
            yield "admin.token_file: shown without admin.tls, on another address than loopback; it travels in clear"
    if config.auth is not None and not config.auth.jwt.require_connectors:
        yield (
            "auth.jwt.require_connectors: false; a token without the claim connectors may announce every connector of"
            " its tenant"
        )
    if config.edge.tls is None and not config.edge.bind.is_loopback:
        yield (f"edge.bind: {config.edge.bind} without edge.tls; tokens travel in clear unless an ingress ends TLS")
    yield from _silent(config)
    yield from _holes(config)
    yield from _endings(config)
    if config.ha.enabled:
        yield from _cluster_warnings(config.ha)
    elif config.ha.mode != "off":
        yield f"ha.mode: {config.ha.mode} has no effect, as ha.enabled is false"


def _silent(config: HubConfig) -> Iterator[str]:
    """Clients who are waited for in vain."""
    for index, one in enumerate(config.listeners):
        if one.open_on == "accept":
            continue
        if (protocol := SERVER_FIRST.get(one.bind.port)) is not None:
            yield (
                f"listeners[{index}].open_on: first_byte at port {one.bind.port}; in {protocol} the server speaks"
                " first, and nobody ever would; set open_on: accept"
            )
        if not one.first_byte_timeout_sec and not one.idle_timeout_sec:
            yield (
                f"listeners[{index}].open_on: first_byte, and neither first_byte_timeout_sec nor idle_timeout_sec ends"
                " a client that stays silent"
            )


def _holes(config: HubConfig) -> Iterator[str]:
    """Clients who come after a silent loss, and give up before anybody has noticed it."""
    noticed = {"tunnel.ping_timeout_sec": config.tunnel.ping_timeout_sec}
    if config.ha.enabled and config.ha.mode == "active":
        noticed["ha.mesh.ping_timeout_sec"] = config.ha.mesh.ping_timeout_sec
    name, timeout = max(noticed.items(), key=lambda one: one[1])
    waits = {"flow.open_timeout_sec": config.flow.open_timeout_sec} | {
        f"listeners[{index}].hold_sec": one.hold_sec for index, one in enumerate(config.listeners) if one.hold_sec
    }
    for path, seconds in waits.items():
        if seconds < timeout + NOTICED_WITHIN:
            yield (
                f"{path}: {seconds:g} s, but a silent loss is noticed after {name}, {timeout:g} s; clients who come"
                f" before that are reset instead of served late; make it {timeout + NOTICED_WITHIN:g} or more"
            )


def _endings(config: HubConfig) -> Iterator[str]:
    """Drains that lose clients: killed before they are over, or begun before balancers know."""
    drain = config.drain
    total = drain.delay_sec + drain.timeout_sec
    if total >= KILLED_AFTER:
        yield (
            f"drain.timeout_sec: {total:g} s together with delay_sec; a supervisor that kills after {KILLED_AFTER} s,"
            " as systemd does unless told otherwise, cuts the flows that are left; set TimeoutStopSec,"
            " terminationGracePeriodSeconds or `docker stop --time` above it"
        )
    if not drain.delay_sec and any(one.proxy_protocol != "off" for one in config.listeners):
        yield (
            "drain.delay_sec: 0, and a balancer is in front of a listener; unless it tries that very port, its clients"
            " are refused until it has noticed that the hub drains"
        )


def _cluster_warnings(ha: Ha) -> Iterator[str]:
    mesh = ha.mesh
    if ha.redis_url is None:
        if ha.mode != "off":
            yield (
                f"ha.redis_url: not set; with a registry in memory a hub knows only its own agents, so mode {ha.mode}"
                " finds none on the others"
            )
    elif ha.redis_url.startswith("redis://") and not Address(urlsplit(ha.redis_url).hostname or "", 0).is_loopback:
        yield (
            "ha.redis_url: redis:// to another machine; whoever reads that network learns its password, and whoever"
            " writes to Redis moves agents"
        )
    if not mesh.used and mesh.advertise is None:
        yield "ha.mesh: nothing to listen at, to advertise or to dial; this hub reaches only those that advertise"
    if mesh.listen is not None and not mesh.require_mtls:
        if mesh.secret_file is None:
            yield "ha.mesh.require_mtls: false, and there is no secret_file; only peers with certificates are let in"
        elif not mesh.listen.is_loopback:
            yield f"ha.mesh.listen: {mesh.listen} without require_mtls; what flows carry crosses the network as it is"
    if mesh.listen is not None and mesh.listen.is_wildcard and mesh.advertise is None:
        yield (
            f"ha.mesh.advertise: not set, and listen is {mesh.listen}; the registry cannot tell the others where this"
            " hub is, so each must name it in its peers"
        )
    by_ingress = any(url.startswith(("ws://", "wss://")) for url in [*mesh.peers, mesh.advertise or ""])
    if by_ingress and mesh.require_mtls and not mesh.trusted_proxies:
        yield (
            "ha.mesh.trusted_proxies: empty; peers that come through an ingress which ends their mutual TLS are turned"
            " away"
        )
    if any(url.startswith("wss://") for url in [*mesh.peers, mesh.advertise or ""]) and mesh.secret_file is None:
        yield (
            "ha.mesh.secret_file: not set; the replica behind an ingress (wss://) proves nothing to the hub that dials,"
            " so each such URL must stand in its peers, and the ingress is believed"
        )


def _agent_warnings(config: AgentConfig) -> Iterator[str]:
    for index, hub in enumerate(config.hubs):
        if is_plaintext(hub):
            yield f"hubs[{index}]: ws:// to another machine; the token travels in clear"
    if config.tls is not None and not any(hub.startswith("wss://") for hub in config.hubs):
        yield "tls: no hub is reached by wss://, so the section has no effect"
    for index, connector in enumerate(config.connectors):
        if connector.target.port == MYSQL_PORT and connector.health is not None and connector.health.is_connect:
            yield (
                f"connectors[{index}].health: MySQL and MariaDB block who only connects, and all clients with it;"
                " write protocol: mysql"
            )


def _collector_warnings(config: HubConfig | AgentConfig) -> Iterator[str]:
    if config.otlp is None:
        return
    url = urlsplit(config.otlp.endpoint)
    if url.scheme == "http" and not Address(url.hostname or "", 0).is_loopback:
        what = "log lines" if config.otlp.headers_file is None else "log lines, and what headers_file holds,"
        yield f"otlp.endpoint: http:// to another machine; {what} travel in clear"
    if config.logging.level in ("warning", "error") and "flow_closed" in config.otlp.events:
        yield f"otlp.events: flow_closed, which logging.level {config.logging.level} does not write, so it is not sent"
