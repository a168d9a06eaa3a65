"""The agent's admin edge, if one is configured: health, status and metrics, at loopback or a Unix socket. Whoever
reaches it may ask; the process's inside (/diag/…) is shown at the socket alone, if there is one, and an upgrade is
begun there alone."""

from __future__ import annotations

from websockets.http11 import Request

from ncfast.agent import metrics
from ncfast.agent.standing import Standing
from ncfast.config.agent import AgentAdmin
from ncfast.net.acceptor import Acceptor
from ncfast.net.origin import is_for
from ncfast.net.ports import wanted_by
from ncfast.net.request import Answer, HttpLimits, HttpServer, Response
from ncfast.net.routes import EXPOSITION, Routes, healthz, json_response, path_of, unfit
from ncfast.net.seam import Net
from ncfast.net.upgrading import begun
from ncfast.net.upgrading import standing as how_it_stands
from ncfast.observe import diag, log
from ncfast.observe.slices import spread
from ncfast.observe.upgrading import Upgrades

_log = log.get("agent")


class Admin:
    """Answers for one agent."""

    def __init__(
        self, standing: Standing, net: Net, limits: HttpLimits = HttpLimits(), upgrades: Upgrades | None = None
    ) -> None:
        self._standing = standing
        self._net = net
        self._http = HttpServer(self.handle, limits, net)
        self._doors: list[Acceptor] = []
        self.address = ""  # host:port as bound; "" if nowhere
        self._routes: Routes = {
            "/healthz": ("GET", healthz),
            "/readyz": ("GET", lambda request: json_response(*standing.answer())),
            "/status": ("GET", self._status),
            "/metrics": ("GET", self._metrics),
            "/upgrade": ("POST", lambda request: begun(upgrades)),
            "/upgrade/state": ("GET", lambda request: how_it_stands(upgrades)),
            **{f"/diag/{name}": ("GET", self._diag) for name in diag.PARTS},
        }
        self._inside_at_bind = False

    async def start(self, config: AgentAdmin) -> None:
        """Opens what is configured. Raises OSError when it cannot be bound; nothing stays open then."""
        self._inside_at_bind = config.unix is None
        try:
            if config.bind is not None:
                with wanted_by("admin.bind"):
                    door = await self._net.listen(config.bind, self._http.accept, use="admin")
                self._doors.append(door)
                self.address = door.address
            if config.unix is not None:
                with wanted_by("admin.unix"):
                    self._doors.append(
                        await self._net.listen_unix(
                            str(config.unix),
                            lambda sock, peer: self._http.accept(sock, None, None, self.handle_local),
                            use="admin",
                        )
                    )
        except OSError:
            self.close()
            raise
        _log.info("admin_ready", admin=self.address or None, unix=str(config.unix) if config.unix is not None else None)

    def close(self) -> None:
        """Stops listening and ends open connections."""
        for door in self._doors:
            door.close()
        self._http.close()

    def handle(self, request: Request) -> Answer:
        """A request at the TCP port, which a web page may have sent there."""
        if not is_for(request, ()):
            return Response.text(421, "Misdirected Request: ask by localhost, or by an IP address")
        if path_of(request).startswith("/diag/") and not self._inside_at_bind:
            return Response.text(403, "Forbidden: /diag is shown at admin.unix")
        if path_of(request) == "/upgrade":
            return Response.text(403, "Forbidden: an upgrade is begun at admin.unix, or by SIGUSR2")
        return self.handle_local(request)

    def handle_local(self, request: Request) -> Answer:
        """One at the Unix socket."""
        refusal = unfit(self._routes, request)
        return refusal if refusal is not None else self._routes[path_of(request)][1](request)

    async def _status(self, request: Request) -> Response:
        return json_response(200, await self._standing.document())

    async def _diag(self, request: Request) -> Response:
        name = path_of(request).removeprefix("/diag/")
        config = self._standing.agent.ground.config
        return Response(200, diag.PARTS[name], await spread(diag.part(name, lambda: config)))

    async def _metrics(self, request: Request) -> Response:
        return Response(200, EXPOSITION, await metrics.exposition(await self._standing.document()))
