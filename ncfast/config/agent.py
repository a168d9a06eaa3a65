"""An agent's configuration file."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import model_validator

from ncfast.config.otlp import Otlp
from ncfast.config.sections import (
    ClientTls,
    Drain,
    EndLimits,
    FlowConfig,
    Logging,
    Section,
    Tunnel,
    Upgrade,
    key,
    section,
)
from ncfast.config.values import (
    Address,
    AgentId,
    CheckText,
    CheckUser,
    Count,
    FilePath,
    Name,
    ProxyChoice,
    Seconds,
    Switch,
    Target,
    TunnelUrl,
    fault,
)


class Health(Section):
    """Health checks of a connector's target: a TCP connect, or what `protocol` or `expect` ask for. A failing target
    withdraws its connector."""

    interval_sec: Seconds = key(10, ge=0.05, le=3600, unit="s", why="Between two checks.")
    timeout_sec: Seconds = key(3, gt=0, le=300, unit="s", why="A check that takes longer has failed.")
    fall: Count = key(3, ge=1, le=100, unit="checks", why="Failures in a row that withdraw the connector.")
    rise: Count = key(2, ge=1, le=100, unit="checks", why="Successes in a row that announce it again.")
    protocol: Literal["tcp", "mysql", "postgres", "ldap", "redis"] = key(
        "tcp",
        why=(
            "Have the shortest exchange of this protocol that the target does not mind. tcp: a connect that says"
            " nothing, left out while clients' connects succeed, or send and expect. MySQL and MariaDB (mysql) take"
            " such connects for attacks: after max_connect_errors (100) they block the agent, and so all its clients."
        ),
    )
    user: CheckUser | None = key(
        None,
        why=(
            "Account for protocol mysql, without password and rights (CREATE USER name@host). Without it the login is"
            " denied, which is as good an answer, but has the server log it and count it in Aborted_connects."
        ),
    )
    send: CheckText | None = key(
        None, why='Say this first, and wait for `expect`. Double-quoted YAML has escapes: "PING\\r\\n", "\\x00".'
    )
    expect: CheckText | None = key(None, why="What the target's answer, or its greeting without `send`, begins with.")

    @property
    def is_connect(self) -> bool:
        """Whether a check only connects."""
        return self.protocol == "tcp" and self.expect is None

    @model_validator(mode="after")
    def _one_way(self) -> Health:
        if self.protocol != "tcp" and (self.send is not None or self.expect is not None):
            own = "send" if self.send is not None else "expect"
            raise fault("a check has a protocol, or texts of its own", f"remove protocol, or {own}", own, "protocol")
        if self.send is not None and self.expect is None:
            raise fault("send without expect", "say in expect what the answer begins with", "send")
        if self.user is not None and self.protocol != "mysql":
            raise fault("only protocol mysql logs in", "remove user", "user")
        return self


class Connector(Section):
    """One private TCP service that this agent offers."""

    name: Name = key(why="What listeners call it; unique in the file, and within the token's scope.")
    target: Target = key(why="Where the service listens, as host:port. Names are resolved at each dial.")
    proxy_protocol: Literal["off", "v1", "v2"] = key(
        "off", why="Send a PROXY protocol header with the client's address to the target."
    )
    dial_timeout_sec: Seconds = key(
        5, gt=0, le=300, unit="s", why="How long a connect to the target may take, name lookup included."
    )
    health: Health | None = key(None, why="Check the target; without it the connector is always announced.")
    max_dials: Count = key(
        256,
        ge=1,
        le=100_000,
        unit="connects",
        why="Connects to the target in progress at once; protects the service.",
    )


def is_plaintext(hub: str) -> bool:
    """Whether who is on the way to the hub can read the token."""
    url = urlsplit(hub)
    return url.scheme == "ws" and not Address(url.hostname or "", 0).is_loopback


class AgentAdmin(Section):
    """Where one asks how the agent is: /healthz, /readyz, /status and /metrics, without a password, and nothing can be
    changed. Nowhere without this section: an agent listens to nobody."""

    bind: Address | None = key(
        None, why="A loopback address, such as 127.0.0.1:9410, where `ncfast status --agent` looks."
    )
    unix: FilePath | None = key(None, why="A Unix socket, for this user alone (0600).")

    @model_validator(mode="after")
    def _here_alone(self) -> AgentAdmin:
        if self.bind is None and self.unix is None:
            raise fault("neither bind nor unix, so nobody could ask", "give one of them", "", "bind", "unix")
        if self.bind is not None and not self.bind.is_loopback:
            raise fault(
                "others than this machine would reach it, and no password is asked for",
                "write a loopback address, such as 127.0.0.1:9410, or use unix",
                "bind",
            )
        return self


class Reconnect(Section):
    """Attempts to reach a hub: full jitter between zero and a bound that doubles from min_sec to max_sec."""

    min_sec: Seconds = key(
        0.2,
        gt=0,
        le=60,
        unit="s",
        why=(
            "Bound of the first pause; jittered too, against stampedes. Until anybody has answered since the start it"
            " is 0.02 at most, for a hub that is started beside the agent."
        ),
    )
    max_sec: Seconds = key(30, gt=0, le=3600, unit="s", why="The bound stops growing here.")
    connect_timeout_sec: Seconds = key(
        10, gt=0, le=300, unit="s", why="Name lookup, TCP, TLS and WebSocket handshake together."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Reconnect:
        if self.min_sec > self.max_sec:
            raise fault("min_sec is larger than max_sec", "swap them", "min_sec", "max_sec")
        return self


class AgentConfig(Section):
    """An agent: dials out to its hubs and offers the services it can reach."""

    hubs: list[TunnelUrl] = key(
        min_length=1,
        why="Hubs to dial, as wss://host/tunnel, tried in turn; ws:// beyond loopback only with allow_plaintext.",
    )
    allow_plaintext: Switch = key(
        False,
        why=(
            "Show the token to hubs by ws:// beyond loopback, where whoever is on the way can read and use it. For"
            " tests, and for networks that encrypt by themselves (a VPN, a sidecar)."
        ),
    )
    agent_id: AgentId = key(why="This agent's identity; must equal the token's sub.")
    token_file: FilePath = key(why="File with the token; read again before it expires.")
    connectors: list[Connector] = key(min_length=1, why="The services offered.")
    tls: ClientTls | None = key(None, why="TLS towards the hubs (wss://); without it the system's CAs.")
    reconnect: Reconnect = section(why="Attempts to reach a hub.")
    standby: Switch = key(
        True,
        why=("Keep a second tunnel, to another hub of the cluster, that takes over at once when the first is lost."),
    )
    http_proxy: ProxyChoice = key(
        "env", why="Proxy towards the hubs. env: HTTPS_PROXY, HTTP_PROXY and NO_PROXY. off: none. Or its URL."
    )
    limits: EndLimits = section(why="Bounds on the process.")
    flow: FlowConfig = section(why="Timers and windows of a flow.")
    tunnel: Tunnel = section(why="Keepalive and queues of a tunnel.")
    drain: Drain = section(why="The orderly end.")
    upgrade: Upgrade = section(why="Handing over to a new process.")
    logging: Logging = section(why="Log lines.")
    otlp: Otlp | None = key(None, why="Log lines to an OpenTelemetry Collector, too.")
    admin: AgentAdmin | None = key(None, why="Where one asks how the agent is; without it nowhere.")

    @model_validator(mode="after")
    def _token_is_hidden(self) -> AgentConfig:
        if not self.allow_plaintext and any(map(is_plaintext, self.hubs)):
            raise fault(
                "the token would travel in clear to a hub reached by ws://",
                "write wss://, or allow_plaintext: true (--allow-plaintext)",
                "hubs",
            )
        return self
