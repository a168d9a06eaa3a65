"""The public HTTP edge: /tunnel for agents, /mesh for hubs behind an ingress, /healthz and /readyz for balancers,
nothing else."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from typing import TYPE_CHECKING, Any

from websockets.http11 import Request

from ncfast.auth import AuthError, ClientCertificate, Identity
from ncfast.config.hub import ServerTls
from ncfast.config.values import Address
from ncfast.hub.admin import readyz
from ncfast.hub.certificate import of_connection, of_ingress, prepare
from ncfast.hub.claims import Claims
from ncfast.hub.ground import Ground
from ncfast.hub.session import AgentSession
from ncfast.hub.sessions import TUNNELS, Sessions
from ncfast.hub.tokens import Tokens
from ncfast.hub.ways import Ways
from ncfast.mesh.trust import Refused
from ncfast.net.acceptor import Acceptor
from ncfast.net.handshake import accept
from ncfast.net.links import LinkBounds, carry_websocket
from ncfast.net.newcomers import Newcomers, source_of
from ncfast.net.ports import wanted_by
from ncfast.net.request import BadRequest, HttpLimits, RequestReader, Response, answer
from ncfast.net.routes import healthz
from ncfast.net.throttle import Throttle
from ncfast.net.tls import server_context
from ncfast.observe import log

if TYPE_CHECKING:
    from ncfast.mesh.manager import Mesh

RESERVE = 1 / 8  # of max_agents; when no more is left, an agent has one tunnel here beside the one that owns it


class Edge:
    """Accepts connections, bounds their handshakes, and hands tunnels to the hub."""

    def __init__(self, ground: Ground, ways: Ways, sessions: Sessions, tokens: Tokens, claims: Claims) -> None:
        self.ground = ground
        self.net = ground.net
        self.ways = ways
        self.sessions = sessions
        self.tokens = tokens
        self.claims = claims
        config = ground.config.edge
        self.limits = HttpLimits(
            config.handshake_timeout_sec, config.max_header_bytes, config.max_headers, config.max_pending_handshakes
        )
        self.throttle = Throttle(config.handshakes_per_source_per_sec, ground.clock)
        self.comers = Throttle(config.tunnels_per_agent_per_sec, ground.clock)
        self.pending: Newcomers[Handshake] = Newcomers(self.limits.max_connections, self._make_room)
        self.use_tls(self.load_tls(config.tls))
        prepare(config)
        self._acceptor: Acceptor | None = None

    async def open(self) -> None:
        """Binds the port. Raises OSError."""
        with wanted_by("edge.bind"):
            self._acceptor = await self.net.listen(
                self.ground.config.edge.bind,
                self._on_socket,
                on_shed=lambda reason: self._refused(reason, ""),
                use="edge",
            )

    def load_tls(self, tls: ServerTls | None) -> ssl.SSLContext | None:
        """Reads certificate and key; `use_tls` puts them in force. Raises OSError."""
        return server_context(tls) if tls is not None else None

    def use_tls(self, context: ssl.SSLContext | None) -> None:
        """For handshakes from now on."""
        self._context = context
        tls = self.ground.config.edge.tls
        self.ground.shows("edge", tls.cert_file if tls is not None else None)

    @property
    def address(self) -> str:
        return self._acceptor.address if self._acceptor is not None else ""

    def hold(self) -> None:
        """Stops accepting for a while; handshakes go on."""
        if self._acceptor is not None:
            self._acceptor.hold()

    def go_on(self) -> None:
        """Accepts again."""
        if self._acceptor is not None:
            self._acceptor.go_on()

    def close(self) -> None:
        """Stops accepting and ends unfinished handshakes."""
        if self._acceptor is not None:
            self._acceptor.close()
        for handshake in self.pending:
            handshake.abort()

    def trusts(self, host: str) -> bool:
        """Whether it is an ingress whose X-Forwarded-For is believed."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self.ground.config.edge.trusted_proxies)

    def _refused(self, reason: str, remote: str) -> None:
        self.ground.stats.handshakes_refused[reason] += 1
        log.security("handshake_refused", reason=reason, remote=remote)

    def _on_socket(self, sock: Any, peer: Any) -> None:
        host, remote = peer[0], str(Address(peer[0], peer[1]))
        # An ingress is not one source: each of its connections counts for itself, until it says whose it is.
        trusted = self.trusts(host)
        source = remote if trusted else source_of(host)
        # A TLS handshake is what a flood of connects would cost; without one the request is heard first, since health
        # checks often come from the very address from which a NAT lets all agents come.
        rated = self._context is not None and not trusted
        if rated and not self.throttle.admit(source):
            self._refused("rate", remote)
            sock.close()
            return
        handshake = Handshake(self, host, remote, trusted, rated)
        self.net.opened()
        handshake.open(sock, self._context)
        self.pending.enter(handshake, source)

    def _make_room(self, handshake: Handshake) -> None:
        self._refused("too_many_handshakes", handshake.remote)
        handshake.abort()


class Handshake(asyncio.Protocol):
    """One connection until it is answered, or has become a tunnel."""

    def __init__(self, edge: Edge, host: str, remote: str, trusted: bool, rated: bool) -> None:
        """`trusted`: it comes from an ingress, whose X-Forwarded-For is believed; `rated`: its source has been asked
        for its rate already."""
        self.remote = remote
        self._edge = edge
        self._ground = edge.ground
        self._net = edge.net
        self._host = host
        self._trusted = trusted
        self._rated = rated
        self._reader: RequestReader | None = RequestReader(edge.limits)
        self._transport: Any = None
        self._task: asyncio.Task[None] | None = None  # of TLS, until the transport is there
        self._waiting = False  # for the token's verdict; bytes before 101 are smuggling
        self._done = False
        self._head_only = False  # the request's method is HEAD: whatever is answered has no body
        self._timer = edge.net.call_later(edge.limits.timeout_sec, self._late)

    def open(self, sock: Any, context: ssl.SSLContext | None) -> None:
        """Takes the socket."""
        self._task = self._net.adopt(sock, self, context)

    # asyncio

    def connection_made(self, transport: Any) -> None:
        self._task = None
        self._transport = transport
        if self._done:  # ended while TLS came about
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._waiting:
            self._refuse(400, "early_bytes", "Bytes before the handshake was answered")
            return
        if self._reader is None:
            return
        try:
            request = self._reader.feed(data)
        except BadRequest as exc:
            self._refuse(exc.status, exc.reason, exc.status.phrase)
            return
        if request is None:
            return
        early, self._reader = self._reader.rest, None
        if early:
            self._refuse(400, "early_bytes", "Bytes after the request")
            return
        self._route(request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()
        self._net.gone()

    def handshake_failed(self, exc: Exception) -> None:
        """TLS did not come about."""
        self._task = None
        self._edge._refused("tls", self.remote)
        self._finish()
        self._net.gone()

    def abort(self) -> None:
        """Ends the connection now, whatever it is at; its place is free at once."""
        self._finish()
        if self._transport is not None:
            self._transport.abort()
        elif self._task is not None:
            self._task.cancel()  # of a TLS handshake: the socket goes with it
            self._task = None
            self._net.gone()

    def _finish(self) -> None:
        self._done = True
        self._timer.cancel()
        self._edge.pending.leave(self)

    def _late(self) -> None:
        if self._done:
            return
        if self._transport is None:  # there is nobody to tell before TLS has come about
            self._edge._refused("handshake_timeout", self.remote)
            self.abort()
        else:
            self._refuse(408, "handshake_timeout", "Request Timeout")

    # requests

    def _answer(self, response: Response) -> None:
        self._reader = None
        self._waiting = False
        self._timer.cancel()
        self._timer = answer(self._transport, response, self._net.call_later, head_only=self._head_only)

    def _refuse(self, status: int, reason: str, text: str, *headers: tuple[str, str]) -> None:
        self._edge._refused(reason, self.remote)
        self._answer(Response.text(status, text, *headers))

    def _route(self, request: Request) -> None:
        self._head_only = request.method == "HEAD"
        path, question, _ = request.path.partition("?")
        mesh = self._edge.ways.mesh
        if path == "/healthz" and request.method in ("GET", "HEAD"):
            self._answer(healthz(request))
        elif path == "/readyz" and request.method in ("GET", "HEAD"):
            self._answer(readyz(self._ground.readiness))
        elif not self._admitted(request):
            self._refuse(429, "rate", "Too many requests", ("Retry-After", "1"))
        elif path == "/mesh" and mesh is not None and mesh.running and not question:
            self._mesh(request, mesh)
        elif path != "/tunnel":
            self._answer(Response.text(404, "Not Found"))
        elif question:
            self._refuse(400, "query", "No query is taken here; a token belongs into the Authorization header")
        else:
            self._tunnel(request)

    def _mesh(self, request: Request, mesh: Mesh) -> None:
        response = mesh.serve_http(request, self._transport, host=self._host, remote=self.remote)
        if response is not None:
            return self._answer(response)
        self._finish()  # the connection is the link's from now on
        return None

    def _tunnel(self, request: Request) -> None:
        headers = request.headers
        if headers.get_all("Origin"):
            return self._refuse(403, "origin", "Browsers are not agents")
        if headers.get_all("Content-Length") or headers.get_all("Transfer-Encoding"):
            return self._refuse(400, "body", "A handshake has no body")
        if not self._ground.readiness.serving:
            return self._refuse(503, "not_serving", "This hub does not serve", ("Retry-After", "1"))
        if len(self._edge.sessions) >= self._ground.config.limits.max_agents:
            return self._refuse(503, "agent_cap", "This hub serves as many agents as it may", ("Retry-After", "5"))
        credentials = headers.get_all("Authorization")
        scheme, _, token = credentials[0].partition(" ") if len(credentials) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not token:
            self._ground.stats.auth_failed["missing"] += 1
            return self._refuse(
                401, "no_token", "One Authorization: Bearer header is needed", ("WWW-Authenticate", "Bearer")
            )
        try:
            certificate = self._certificate(request)
        except Refused as exc:
            return self._refuse(exc.status, exc.reason, "The client certificate was refused")
        self._waiting = True
        self._net.spawn(self._authenticate(request, token.strip(), certificate), "authenticate")
        return None

    def _certificate(self, request: Request) -> ClientCertificate | None:
        """What the agent has shown; an ingress's own certificate is never an agent's. Raises Refused."""
        if self._trusted and self._ground.config.edge.forwarded_certificates:
            return of_ingress(request.headers)
        return of_connection(self._transport)

    def _admitted(self, request: Request) -> bool:
        """Whether the request's source may come so fast: our peer, or whom an ingress names."""
        if self._rated:
            return True
        source = source_of(self._host)
        if self._trusted:
            host = self._client_of(request)
            source = source_of(host)
            if host != self._host:
                self.remote = host
            self._edge.pending.speaks_for(self, source)
        return self._edge.throttle.admit(source)

    def _client_of(self, request: Request) -> str:
        """The client's address: the last of X-Forwarded-For, from the right, that is no trusted proxy's. Our peer's,
        where there is none, or what should be one is no address."""
        host = self._host
        hops = [hop.strip() for value in request.headers.get_all("X-Forwarded-For") for hop in value.split(",")]
        while hops and self._edge.trusts(host):
            try:
                host = str(ipaddress.ip_address(hops.pop().partition("%")[0]))  # what a zone says, anybody may write
            except ValueError:
                return self._host
        return host

    async def _authenticate(self, request: Request, token: str, certificate: ClientCertificate | None) -> None:
        try:
            identity = await self._edge.tokens.verify(token, certificate)
        except AuthError as exc:
            self._ground.stats.auth_failed[exc.reason] += 1
            log.security("auth_failed", reason=exc.reason, sub=exc.subject, remote=self.remote)
            if self._waiting and not self._done:
                if exc.reason == "keys_unavailable":
                    self._answer(Response.text(503, "Tokens cannot be checked at the moment", ("Retry-After", "2")))
                else:
                    why = f', error_description="{exc.told}"' if exc.told else ""
                    challenge = f'Bearer error="invalid_token"{why}'  # RFC 6750, section 3
                    self._answer(Response.text(401, "The token was refused", ("WWW-Authenticate", challenge)))
            return
        if not self._waiting or self._done:
            return
        if identity.key in self._ground.locks:
            log.security("agent_locked_refused", agent_id=identity.agent_id, remote=self.remote)
            self._refuse(403, "agent_locked", "This agent is locked out")
        elif not self._edge.comers.admit(identity.key):
            self._refuse(429, "agent_rate", "This agent comes again too fast", ("Retry-After", "1"))
        elif self._ground.readiness.draining and not self._edge.claims.awaited(identity):
            self._refuse(503, "draining", "This hub is going away", ("Retry-After", "1"))
        else:
            self._upgrade(request, identity, certificate)

    def _upgrade(self, request: Request, identity: Identity, certificate: ClientCertificate | None) -> None:
        accepted, refusal = accept(request)
        if refusal is not None:
            self._edge._refused("websocket", self.remote)
            self._answer(refusal)
            return
        edge, ground, transport = self._edge, self._ground, self._transport
        crowded = len(edge.sessions) >= (1 - RESERVE) * ground.config.limits.max_agents
        edge.sessions.make_room(identity.key, 2 if crowded else TUNNELS)
        self._finish()
        self._waiting = False
        transport.write(accepted)
        session = AgentSession(ground, edge.ways, edge.tokens, edge.claims, identity, self.remote, certificate)
        session.tls = transport.get_extra_info("ssl_object") is not None
        bounds = LinkBounds.of_tunnel(ground.config.tunnel)
        session.link, _ = carry_websocket(ground, transport, session, bounds, client=False, peer=identity.agent_id)
        ground.stats.tunnels_opened += 1
        edge.sessions.add(session)
