"""The admin edge: metrics, status, health, drain, moves of agents, on a port of their own that is never the public one.

It has no accounts. It listens on the loopback address unless configured otherwise; whoever reaches it may
read the status, drain the hub and move its agents, except a web page: a request with an ``Origin`` changes nothing.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from websockets.http11 import Request

from ncfast.config import Address
from ncfast.hub.level import MoveRefused
from ncfast.net.request import HttpLimits, HttpServer, Response
from ncfast.net.seam import Acceptor
from ncfast.observe import metrics, statuspage
from ncfast.observe.readiness import Readiness


class Hub(metrics.Hub, Protocol):
    """What the admin edge needs of a hub."""

    readiness: Readiness

    def request_drain(self) -> None: ...
    def move_agent(self, agent: str, hub: str | None) -> str: ...


Listen = Callable[[Callable[[], asyncio.BaseProtocol], Address], Awaitable[Acceptor]]


class Admin:
    """Answers the admin edge's requests for one hub."""

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop, limits: HttpLimits = HttpLimits()) -> None:
        self._hub = hub
        self._metrics = metrics.Metrics(hub)
        self._http = HttpServer(self.handle, limits, loop)
        self._server: Acceptor | None = None
        self._routes: dict[str, tuple[str, Callable[[Request], Response]]] = {
            "/": ("GET", self._page),
            "/metrics": ("GET", self._metrics_text),
            "/status": ("GET", self._status),
            "/healthz": ("GET", healthz),
            "/readyz": ("GET", lambda request: readyz(hub.readiness)),
            "/drain": ("POST", self._drain),
            "/agents/move": ("POST", self._move),
        }

    async def start(self, listen: Listen, address: Address) -> None:
        """Opens the edge through ``listen(protocol_factory, address)``. Raises OSError when it cannot be bound."""
        self._server = await listen(self._http.protocol, address)

    @property
    def address(self) -> str:
        """host:port as bound; "" if nowhere yet."""
        return self._server.address if self._server is not None else ""

    def close(self) -> None:
        """Stops listening and ends open connections."""
        if self._server is not None:
            self._server.close()
        self._http.close()

    def handle(self, request: Request) -> Response:
        path = request.path.partition("?")[0]
        if path not in self._routes:
            return Response.text(404, "Not Found: " + " ".join(self._routes))
        method, answer = self._routes[path]
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            allow = "GET, HEAD" if method == "GET" else method
            return Response.text(405, "Method Not Allowed", ("Allow", allow))
        if method == "POST" and "Origin" in request.headers:
            return Response.text(403, "Forbidden: not from a web page")
        return answer(request)

    def _page(self, request: Request) -> Response:
        body = statuspage.render(self._hub.snapshot(), refresh=not request.path.endswith("?refresh=off"))
        policy = ("Content-Security-Policy", statuspage.SECURITY_POLICY)
        return Response(200, "text/html; charset=utf-8", body, (policy,))

    def _metrics_text(self, request: Request) -> Response:
        return Response(200, metrics.CONTENT_TYPE, self._metrics.render())

    def _status(self, request: Request) -> Response:
        return json_response(200, self._hub.snapshot())

    def _drain(self, request: Request) -> Response:
        self._hub.request_drain()
        return json_response(202, {"state": "draining"})

    def _move(self, request: Request) -> Response:
        """``?agent=`` and, if it is to be a certain one, ``&hub=``."""
        asked = dict(urllib.parse.parse_qsl(request.path.partition("?")[2]))
        if "agent" not in asked:
            return Response.text(400, "Bad Request: which agent? ?agent=site-1&hub=hub-b")
        try:
            hub = self._hub.move_agent(asked["agent"], asked.get("hub"))
        except MoveRefused as exc:
            return Response.text(409, str(exc))
        return json_response(202, {"agent": asked["agent"], "hub": hub})


def json_response(status: int, body: dict[str, Any]) -> Response:
    return Response(status, "application/json", orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE))


def healthz(request: Request) -> Response:
    """The process answers: always ok."""
    return json_response(200, {"status": "ok"})


def readyz(readiness: Readiness) -> Response:
    """Whether the hub takes traffic."""
    return json_response(*readiness.answer())
