"""A hub's configuration file."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from ncfast.config.ha import Ha
from ncfast.config.otlp import Otlp
from ncfast.config.sections import (
    KIB,
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
    CIDR,
    Address,
    AgentId,
    Bytes,
    CertificateName,
    Count,
    FilePath,
    JwksUrl,
    Moment,
    Name,
    ProxyChoice,
    Rate,
    Seconds,
    Switch,
    fault,
)

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]


class Listener(Section):
    """One TCP port for clients, bound to one connector. Reload (SIGHUP) adds, changes, removes."""

    name: Name = key(why="The listener's name in logs, metrics and status; unique in the file.")
    bind: Address = key(why="Where clients connect. ':389' is every interface; port 0 lets the kernel choose.")
    connector: Name = key(why="The private service to reach, by the name its agents announce.")
    tenant: Name | None = key(
        None,
        why=("Only agents whose token carries this tenant serve the listener; without it, agents without a tenant."),
    )
    proxy_protocol: Literal["off", "v1", "v2", "any"] = key(
        "off",
        why=(
            "The PROXY protocol header that sources in proxy_from send first. Never guessed: from such a"
            " source it must come whole and valid, from any other it is never parsed."
        ),
    )
    proxy_from: list[CIDR] = key([], why="The load balancers trusted to send a PROXY header.")
    allow: list[CIDR] = key([], why="Client networks let in; empty lets in all that deny does not name.")
    deny: list[CIDR] = key([], why="Client networks kept out; wins over allow.")
    weight: Count = key(
        1,
        ge=1,
        le=1000,
        unit="parts",
        why=(
            "The listener's share of limits.memory_bytes: half of the budget is divided by weight, each part kept"
            " for its listener; the other half is lent to whoever needs it. With ha.enabled what is relayed for other"
            " hubs counts as a listener of weight 1."
        ),
    )
    max_connections: Count = key(
        10_000,
        ge=1,
        le=10_000_000,
        unit="connections",
        why="Clients of this listener at once; further ones are closed.",
    )
    max_connections_per_source: Count = key(
        0,
        ge=0,
        le=10_000_000,
        unit="connections",
        why=(
            "Clients at once from one source, an IPv4 address or a /64 of IPv6; 0 sets no cap, since behind NAT, or a"
            " balancer without PROXY protocol, one source is a whole site. Set it where each client is its own."
        ),
    )
    idle_timeout_sec: Seconds = key(
        3600,
        ge=0,
        le=604_800,
        unit="s",
        why="A flow without a byte either way for this long is reset; 0 never.",
    )
    first_byte_timeout_sec: Seconds = key(
        0,
        ge=0,
        le=3600,
        unit="s",
        why=(
            "A client that sends no first byte within this is closed; 0 never, since in some protocols the"
            " server speaks first."
        ),
    )
    open_on: Literal["accept", "first_byte"] = key(
        "accept",
        why=(
            "When the service is dialled for a client. accept: at once, which suits every protocol. first_byte: when"
            " the client has sent something, so that a probe that connects and leaves opens nothing; only where the"
            " client speaks first (LDAP, HTTP, TLS, PostgreSQL, Redis), not with MySQL, SMTP, SSH or FTP. A client that"
            " stays silent is reset after first_byte_timeout_sec or, if that is 0, idle_timeout_sec."
        ),
    )
    hold_sec: Seconds = key(
        10,
        ge=0,
        le=600,
        unit="s",
        why=(
            "How long a new client is held while every agent of its connector is reconnecting, so that a"
            " short outage shows as latency and not as an error; 0 refuses at once. Longer than the loss of a tunnel"
            " takes to be noticed."
        ),
    )
    hold_max: Count = key(
        4096,
        ge=0,
        le=1_000_000,
        unit="connections",
        why="Clients held at once, for an agent that reconnects or has all its opens in progress; then refused.",
    )
    backlog: Count = key(
        1024,
        ge=1,
        le=65535,
        unit="connections",
        why="listen(2) backlog; the kernel caps it at net.core.somaxconn.",
    )

    @model_validator(mode="after")
    def _proxy_protocol_has_sources(self) -> Listener:
        if self.proxy_protocol != "off" and not self.proxy_from:
            raise fault(
                "proxy_protocol is on and no source is trusted to send it",
                "name the load balancers in proxy_from",
                "proxy_protocol",
                "proxy_from",
            )
        if self.proxy_protocol == "off" and self.proxy_from:
            raise fault("proxy_from without proxy_protocol", "set proxy_protocol: any", "proxy_from", "proxy_protocol")
        return self


class ServerTls(Section):
    """The edge's own TLS; leave the section out behind an ingress that ends TLS."""

    cert_file: FilePath = key(why="Certificate chain, PEM, the server's own first. Read again on reload.")
    key_file: FilePath = key(why="Private key of cert_file, PEM, without a passphrase. Read again on reload.")
    client_ca_file: FilePath | None = key(
        None, why="CA bundle, PEM; when given, every agent must show a client certificate that it signed."
    )


class Edge(Section):
    """The HTTP edge where agents dial in: /tunnel, /healthz, /readyz (and /mesh with ha)."""

    bind: Address = key(
        Address("127.0.0.1", 8080),
        why="Where agents and the ingress connect. Loopback, until told otherwise.",
    )
    tls: ServerTls | None = key(None, why="Serve TLS here, rather than behind an ingress.")
    trusted_proxies: list[CIDR] = key(
        [], why="Ingresses whose X-Forwarded-For is believed, counted from the right; empty believes none."
    )
    forwarded_certificates: Switch = key(
        False,
        why=(
            "Behind an ingress that ends the agents' mutual TLS: believe what trusted_proxies say of the client"
            " certificate, by X-Forwarded-Client-Cert or X-SSL-Client-*, which they must overwrite."
        ),
    )
    handshake_timeout_sec: Seconds = key(
        5, gt=0, le=60, unit="s", why="From accept to an established tunnel (TLS, HTTP, token); then closed."
    )
    max_header_bytes: Bytes = key(
        8 * KIB,
        ge=KIB,
        le=64 * KIB,
        unit="bytes",
        why="Request line and headers together; more is refused with 431.",
    )
    max_headers: Count = key(64, ge=8, le=1024, unit="headers", why="Header lines of one request; more is refused.")
    max_pending_handshakes: Count = key(
        512,
        ge=1,
        le=100_000,
        unit="connections",
        why=(
            "Connections that are not yet a tunnel, counted before TLS starts. Beyond, the oldest of the source with"
            " most makes room, so that a source with nothing here always gets in."
        ),
    )
    handshakes_per_source_per_sec: Rate = key(
        50,
        ge=0,
        le=100_000,
        unit="1/s",
        why=(
            "Requests a second of one source, /healthz and /readyz apart, in bursts of twice as many; further ones get"
            " 429. With edge.tls, connections, and further ones are closed before their handshake. A source is an IPv4"
            " address, or a /64 of IPv6; behind trusted_proxies, whom they name. 0 no cap."
        ),
    )
    tunnels_per_agent_per_sec: Rate = key(
        5,
        ge=0,
        le=100_000,
        unit="1/s",
        why=(
            "Tunnels a second that one agent may open here, in bursts of twice as many; further ones get 429, so that"
            " an agent which comes again at once after each end costs the others nothing. 0 no cap."
        ),
    )

    @model_validator(mode="after")
    def _forwarded_by_somebody(self) -> Edge:
        if self.forwarded_certificates and not self.trusted_proxies:
            raise fault(
                "forwarded_certificates, and nobody is trusted to forward them",
                "name the ingress in trusted_proxies",
                "forwarded_certificates",
                "trusted_proxies",
            )
        return self


class Admin(Section):
    """The operator's HTTP edge. /metrics, /status and /flows ask for no password; what changes things (/drain,
    /agents/…, /flows/kill), or shows the process's inside (/diag/…), does as `unix` and `token_file` say. With neither,
    it is taken at `bind` if that is a loopback address, and nowhere if not."""

    bind: Address = key(
        Address("127.0.0.1", 9400),
        why=(
            "Where Prometheus and `ncfast status` connect. Beyond loopback the hub warns at its start, and changes need"
            " unix or token_file."
        ),
    )
    unix: FilePath | None = key(
        None,
        why=(
            "A Unix socket, for this user alone (0600), where changes are taken besides reading. With it they are taken"
            " at bind only by token."
        ),
    )
    token_file: FilePath | None = key(
        None,
        why=(
            "The secret, 16 bytes at least, that changes at bind must show as `Authorization: Bearer`. Read again when"
            " the file changes."
        ),
    )
    hosts: list[str] = key(
        [],
        why=(
            "Names by which bind is asked, beside localhost, its own and IP addresses; a request for another host is"
            " refused, since it may come from a web page whose name was rebound to this address."
        ),
    )
    tls: ServerTls | None = key(None, why="Serve TLS at bind. Read at the start.")


class Deny(Section):
    """Tokens that count no longer: those to which all that the rule says applies. It says one thing at least."""

    sub: AgentId | None = key(None, why="The agent's id; without tenant, in every tenant.")
    tenant: Name | None = key(None, why="The token's tenant.")
    jti: str | None = key(None, min_length=1, max_length=128, why="The id of one token.")
    issued_before: Moment | None = key(
        None, why="Tokens with an iat before this moment: those that were stolen with it, while newer ones count."
    )

    @model_validator(mode="after")
    def _says_something(self) -> Deny:
        if all(value is None for value in (self.sub, self.tenant, self.jti, self.issued_before)):
            raise fault("an empty rule, which would deny everybody", "give sub, tenant, jti or issued_before")
        return self


class Jwt(Section):
    """How an agent's token is checked. Keys are read again on reload."""

    audience: str = key("nowconnect", min_length=1, why="The token's aud must contain exactly this.")
    algorithms: list[Algorithm] = key(
        ["HS256"],
        min_length=1,
        why=(
            "Signature algorithms accepted, whatever a token says of itself: HS256 alone, or those of public"
            " keys, never both, so that a public key cannot be taken for a shared secret. HS256 needs"
            " key_file and is for development."
        ),
    )
    key_file: FilePath | None = key(
        None,
        why=("The shared secret (HS256), or the public key or keys in PEM. Exactly one of key_file and jwks_url."),
    )
    jwks_url: JwksUrl | None = key(
        None, why="Where the issuer publishes its public keys; https only, a fixed host, no redirects."
    )
    jwks_ca_file: FilePath | None = key(
        None, why="CA bundle to trust for jwks_url instead of the system's, PEM. Read again when it changes."
    )
    jwks_proxy: ProxyChoice = key(
        "env", why="Proxy towards jwks_url. env: HTTPS_PROXY and NO_PROXY. off: none. Or its URL."
    )
    issuer: str | None = key(None, min_length=1, why="The token's iss must equal this; without it iss is not checked.")
    require_connectors: Switch = key(
        False,
        why=(
            "Refuse tokens without the claim connectors, which may announce every connector of their tenant. Turn it"
            " on; it is off for issuers that do not set the claim yet."
        ),
    )
    certificate_name: CertificateName | None = key(
        None,
        why=(
            "The client certificate must have exactly this name for the token to count, {sub} and {tenant} being the"
            " token's: DNS:{sub}, or URI:spiffe://example.net/{tenant}/{sub} where tenants have agents of one name."
            " Needs edge.tls.client_ca_file or edge.forwarded_certificates. A token with cnf (x5t#S256) is held to its"
            " certificate in any case."
        ),
    )
    leeway_sec: Seconds = key(30, ge=0, le=30, unit="s", why="Clock difference forgiven in exp, nbf and iat.")
    max_lifetime_sec: Count = key(
        86_400,
        ge=60,
        le=86_400,
        unit="s",
        why="The longest exp - iat accepted: a stolen token ends within the day.",
    )
    expiry_grace_sec: Seconds = key(
        60,
        ge=0,
        le=3600,
        unit="s",
        why=(
            "From a token's expiry no new flow is opened on its tunnel; after this much longer without a"
            " refreshed token the tunnel is closed."
        ),
    )

    deny: list[Deny] = key(
        [],
        why=(
            "Tokens that count no longer. Put in force by a reload at once, on tunnels that stand too. For this hub"
            " alone: `ncfast kick` locks an agent out of the whole cluster for a time."
        ),
    )

    @field_validator("algorithms")
    @classmethod
    def _one_family(cls, algorithms: list[Algorithm]) -> list[Algorithm]:
        if "HS256" in algorithms and len(algorithms) > 1:
            raise fault("HS256, a shared secret, stands beside other algorithms", "keep one family")
        return algorithms

    @model_validator(mode="after")
    def _one_key_source(self) -> Jwt:
        if self.key_file and self.jwks_url:
            raise fault("both key_file and jwks_url are given", "keep one of them", "jwks_url", "key_file")
        if not self.key_file and not self.jwks_url:
            raise fault("no key to check tokens with", "give key_file or jwks_url", "", "key_file", "jwks_url")
        if self.jwks_ca_file and not self.jwks_url:
            raise fault("jwks_ca_file without jwks_url", "remove it, or add jwks_url", "jwks_ca_file", "jwks_url")
        if self.jwks_url and self.algorithms == ["HS256"]:
            raise fault(
                "HS256 checks with a shared secret, which a jwks_url never publishes",
                "set algorithms: [RS256] (or ES256, EdDSA), or use key_file",
                "algorithms",
                "jwks_url",
            )
        return self


class Auth(Section):
    """Who may open a tunnel. Without this section the key comes from NC_JWT_KEY_FILE or NC_JWKS_URL."""

    jwt: Jwt = key(why="How tokens are checked.")


class Limits(EndLimits):
    """Bounds on what the hub holds; at each of them new work is refused and counted, old work goes on."""

    max_agents: Count = key(
        10_000,
        ge=1,
        le=1_000_000,
        unit="tunnels",
        why=(
            "Tunnels at once; then handshakes get 503 with Retry-After. One agent has three at most, and two when less"
            " than an eighth is free: the oldest that do not own it end."
        ),
    )
    pending_opens_per_agent: Count = key(
        256,
        ge=1,
        le=100_000,
        unit="flows",
        why=(
            "Opens one agent has not answered yet; further clients wait, as held ones do. One connector has at most"
            " three times as many as are left, alone three quarters, so that a target that hangs does not hold up the"
            " agent's others."
        ),
    )
    fd_reserve: Count = key(
        64,
        ge=8,
        le=65536,
        unit="descriptors",
        why=(
            "File descriptors kept back from clients, for tunnels, the admin edge and files; accepting stops"
            " before the process limit is reached."
        ),
    )
    opens_per_source_per_sec: Rate = key(
        0,
        ge=0,
        le=1_000_000,
        unit="1/s",
        why="New flows a second from one source (IPv4 address, /64 of IPv6), in bursts of twice as many; 0 no cap.",
    )


# Seconds. With a check of /readyz every 2 s, of which the third in a row that fails takes a hub out (HAProxy's own
# inter and fall), the first 503 is seen 2 s after it is there at the latest, the third 4 s later: 6 s, and 2 s for
# three answers, for the balancer to act on them and for clients whom it had sent by then.
DRAIN_DELAY = 8


class HubDrain(Drain):
    """The orderly end: SIGTERM, or POST /drain on the admin edge."""

    delay_sec: Seconds = key(
        DRAIN_DELAY,
        ge=0,
        le=3600,
        unit="s",
        why=(
            "How long /readyz says 503 and everything else goes on, before the listeners close: as long as the"
            " balancers in front take to notice. Enough for a check every 2 s of which the third that fails counts."
            " 0 closes at once: right where no balancer asks."
        ),
    )


class HubConfig(Section):
    """A hub: listeners for clients, an edge for agents, an admin edge for operators."""

    listeners: list[Listener] = key(why="The TCP ports for clients.")
    edge: Edge = section(why="Where agents dial in.")
    admin: Admin = section(why="Where operators look.")
    auth: Auth | None = key(None, why="Who may open a tunnel.")
    limits: Limits = section(why="Bounds on the process.")
    flow: FlowConfig = section(why="Timers and windows of a flow.")
    tunnel: Tunnel = section(why="Keepalive and queues of a tunnel.")
    drain: HubDrain = section(why="The orderly end.")
    upgrade: Upgrade = section(why="Handing over to a new process.")
    logging: Logging = section(why="Log lines.")
    otlp: Otlp | None = key(None, why="Log lines to an OpenTelemetry Collector, too.")
    ha: Ha = section(why="Several hubs as one cluster.")

    @model_validator(mode="after")
    def _names_come_from_certificates(self) -> HubConfig:
        shown = self.edge.forwarded_certificates or (self.edge.tls is not None and self.edge.tls.client_ca_file)
        if self.auth is not None and self.auth.jwt.certificate_name and not shown:
            raise fault(
                "jwt.certificate_name, and no agent is asked for a certificate",
                "add edge.tls.client_ca_file, or edge.forwarded_certificates behind an ingress",
                "auth",
            )
        return self
