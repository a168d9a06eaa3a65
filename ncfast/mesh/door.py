"""Where other hubs come in: the listening sockets, the bound on unfinished handshakes, and links put on what was let
in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from websockets.http11 import Request

from ncfast.core.errors import Reason
from ncfast.mesh.accept import Entrance
from ncfast.mesh.binding import accepted
from ncfast.mesh.peer import Peer
from ncfast.mesh.states import LinkState, Way
from ncfast.mesh.trust import Credential, Refused, is_among
from ncfast.net.acceptor import Acceptor
from ncfast.net.handshake import accept
from ncfast.net.links import carry_stream, carry_websocket
from ncfast.net.newcomers import Newcomers, source_of
from ncfast.net.ports import wanted_by
from ncfast.net.request import Response
from ncfast.net.throttle import Throttle

if TYPE_CHECKING:
    from ncfast.mesh.manager import Mesh

MAX_PENDING = 256  # accepted connections that are not yet a link that stands
CONNECTS_PER_SEC = 50.0  # from one source; a hub dials another once, and again after pauses that grow


class Door:
    """Of one mesh. `pending` holds what has been accepted and does not stand yet."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.pending: Newcomers[Entrance | Peer] = Newcomers(MAX_PENDING, self._make_room)
        self._throttle = Throttle(CONNECTS_PER_SEC, mesh.net.clock)
        self._acceptors: list[Acceptor] = []

    async def open(self) -> None:
        """Listens. Raises OSError when an address cannot be bound; nothing stays open then."""
        config, net = self._mesh.config, self._mesh.net
        try:
            if config.listen is not None:
                with wanted_by("ha.mesh.listen"):
                    self._acceptors.append(
                        await net.listen(config.listen, self._on_socket, on_shed=self._on_shed, use="ha.mesh.listen")
                    )
            if config.listen_unix is not None:
                with wanted_by("ha.mesh.listen_unix"):
                    self._acceptors.append(
                        await net.listen_unix(
                            str(config.listen_unix), self._on_unix_socket, on_shed=self._on_shed, use="ha.mesh.listen"
                        )
                    )
        except OSError:
            self.close()
            raise

    def hold(self) -> None:
        """Stops accepting for a while, and ends what is not a link yet."""
        for acceptor in self._acceptors:
            acceptor.hold()
        self._abort()

    def go_on(self) -> None:
        """Accepts again."""
        for acceptor in self._acceptors:
            acceptor.go_on()

    def _abort(self) -> None:
        for one in self.pending:
            if isinstance(one, Entrance):
                one.abort()

    def close(self) -> None:
        """Stops listening, and ends what is not a link yet."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._abort()

    @property
    def address(self) -> str:
        """host:port as bound, or the Unix socket's path; "" if nowhere."""
        return self._acceptors[0].address if self._acceptors else ""

    # connections

    def _on_socket(self, sock: Any, where: Any) -> None:
        self._enter(sock, where[0], f"{where[0]}:{where[1]}")

    def _on_unix_socket(self, sock: Any, where: Any) -> None:
        self._enter(sock, None, "unix")

    def _enter(self, sock: Any, host: str | None, remote: str) -> None:
        mesh, source = self._mesh, self._source(host, remote)
        if host is not None and not self._throttle.admit(source):
            mesh.refused("rate", remote, "")
            sock.close()
            return
        entrance = Entrance(mesh, self, sock, host, remote)
        mesh.net.opened()
        entrance.open()
        self.pending.enter(entrance, source)

    def _source(self, host: str | None, remote: str) -> str:
        """Who counts for a connection; each of an ingress's counts for itself."""
        trusted = host is None or is_among(host, self._mesh.policy.trusted_proxies)
        return remote if trusted else source_of(host or "")

    def _make_room(self, one: Entrance | Peer) -> None:
        self._mesh.refused("too_many_handshakes", one.remote, "it makes room")
        if isinstance(one, Entrance):
            one.abort()
        else:
            one.link.fail(Reason.HANDSHAKE_TIMEOUT, "too many handshakes")

    def _on_shed(self, reason: str) -> None:
        self._mesh.refused(reason, "", "no descriptors left")

    def left(self, one: Entrance | Peer) -> None:
        """No longer pending."""
        self.pending.leave(one)

    # links

    def put_stream(self, transport: Any, credential: Credential, host: str | None, remote: str, early: bytes) -> None:
        """Puts a link on an accepted connection that begins with frames, the first of them in `early`."""
        mesh = self._mesh
        peer = self._peer(credential, transport, host, remote, "stream")
        peer.link, carrier = carry_stream(mesh.ground, transport, peer, mesh.bounds, peer=remote)
        mesh.greet(peer)
        carrier.feed(early)

    def serve_http(
        self,
        request: Request,
        transport: Any,
        *,
        host: str | None,
        remote: str,
        names: frozenset[str] | None,
        machine: bool,
    ) -> Response | None:
        """As Mesh.serve_http; `names` and `machine` as Policy has them."""
        mesh = self._mesh
        try:
            credential = mesh.policy.of_http(request, host, names, machine)
        except Refused as exc:
            mesh.refused(exc.reason, remote, exc.detail)
            return Response.text(exc.status, exc.detail)
        accepted, answer = accept(request)
        if answer is not None:
            mesh.refused("websocket", remote, "")
            return answer
        transport.write(accepted)
        peer = self._peer(credential, transport, host, remote, "websocket")
        peer.link, _ = carry_websocket(mesh.ground, transport, peer, mesh.bounds, client=False, peer=remote)
        mesh.greet(peer)
        return None

    def _peer(self, credential: Credential, transport: Any, host: str | None, remote: str, carrier: str) -> Peer:
        way = Way(LinkState.HANDSHAKING, self._mesh.net.clock)
        binding = accepted(transport)
        tls = transport.get_extra_info("ssl_object") is not None
        peer = Peer(self._mesh, way, credential, binding, dialled=False, remote=remote, carrier=carrier, tls=tls)
        self.pending.enter(peer, self._source(host, remote))
        return peer
