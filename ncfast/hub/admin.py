"""The admin edge: metrics, status, health and drain, on a port of their own that is never the public one.

It has no accounts. It listens on the loopback address unless configured otherwise; whoever reaches it may
read the status and drain the hub, except a web page: a request with an ``Origin`` changes nothing.

What costs by the number of agents is made in slices, one answer at a time, while the loop serves everybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import orjson
from websockets.http11 import Request

from ncfast.config import Address
from ncfast.net.request import HttpLimits, HttpServer, Response
from ncfast.net.seam import Acceptor, Net
from ncfast.observe import metrics, statuspage
from ncfast.observe.readiness import Readiness
from ncfast.observe.slices import Shared, Slices, spread

Rows = list[dict[str, Any]]


class Snapshot(metrics.Totals, Protocol):
    """What the admin edge shows of a hub."""

    def agents(self, take: Callable[[Rows], object], most: int | None = None) -> Slices[None]: ...
    def cluster_agents(self, take: Callable[[Rows], object], most: int | None = None) -> Slices[None]: ...


class Hub(metrics.Hub, Protocol):
    """What the admin edge needs of a hub."""

    readiness: Readiness

    @property
    def snapshot(self) -> Snapshot: ...

    def request_drain(self) -> None: ...


Answer = Response | Coroutine[Any, Any, Response]
JSON = "application/json"


class Admin:
    """Answers the admin edge's requests for one hub."""

    def __init__(self, hub: Hub, net: Net, limits: HttpLimits = HttpLimits()) -> None:
        self._hub = hub
        self._net = net
        turn = asyncio.Lock()
        self._metrics = Shared(metrics.Metrics(hub).exposition, turn, net.spawn)
        self._status = Shared(lambda: spread(status(hub.snapshot)), turn, net.spawn)
        self._page = Shared(lambda: spread(page(hub.snapshot, refresh=True)), turn, net.spawn)
        self._still_page = Shared(lambda: spread(page(hub.snapshot, refresh=False)), turn, net.spawn)
        self._http = HttpServer(self.handle, limits, net)
        self._server: Acceptor | None = None
        self._routes: dict[str, tuple[str, Callable[[Request], Answer]]] = {
            "/": ("GET", self._page_html),
            "/metrics": ("GET", self._metrics_text),
            "/status": ("GET", self._status_json),
            "/healthz": ("GET", healthz),
            "/readyz": ("GET", lambda request: readyz(hub.readiness)),
            "/drain": ("POST", self._drain),
        }

    async def start(self, address: Address) -> None:
        """Opens the edge. Raises OSError when it cannot be bound."""
        self._server = await self._net.serve(self._http.protocol, address)

    @property
    def address(self) -> str:
        """host:port as bound; "" if nowhere yet."""
        return self._server.address if self._server is not None else ""

    def close(self) -> None:
        """Stops listening and ends open connections."""
        if self._server is not None:
            self._server.close()
        self._http.close()

    def handle(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if path not in self._routes:
            return Response.text(404, "Not Found: " + " ".join(self._routes))
        method, answer = self._routes[path]
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            allow = "GET, HEAD" if method == "GET" else method
            return Response.text(405, "Method Not Allowed", ("Allow", allow))
        return answer(request)

    async def _page_html(self, request: Request) -> Response:
        shown = self._still_page if request.path.endswith("?refresh=off") else self._page
        policy = ("Content-Security-Policy", statuspage.SECURITY_POLICY)
        return Response(200, "text/html; charset=utf-8", await shown.get(), (policy,))

    async def _metrics_text(self, request: Request) -> Response:
        return Response(200, metrics.CONTENT_TYPE, await self._metrics.get())

    async def _status_json(self, request: Request) -> Response:
        return Response(200, JSON, await self._status.get())

    def _drain(self, request: Request) -> Response:
        if "Origin" in request.headers:
            return Response.text(403, "Forbidden: not from a web page")
        self._hub.request_drain()
        return json_response(202, {"state": "draining"})


def status(snapshot: Snapshot) -> Slices[list[bytes]]:
    """The document of /status, in parts: with thousands of agents it has megabytes."""
    agents: list[bytes] = []
    cluster_agents: list[bytes] = []
    yield from snapshot.agents(lambda rows: _append(agents, rows))
    yield from snapshot.cluster_agents(lambda rows: _append(cluster_agents, rows))
    document = yield from snapshot.totals()
    cluster = document.pop("cluster")
    parts = [_open(document), b',"agents":[', *agents, b'],"cluster":']
    if cluster is None:
        return [*parts, b"null}\n"]
    return [*parts, _open(cluster), b',"agents":[', *cluster_agents, b"]}}\n"]


def _append(parts: list[bytes], rows: Rows) -> None:
    """The rows as members of a JSON array."""
    if rows:
        parts += (b"," if parts else b"", orjson.dumps(rows)[1:-1])


def _open(members: dict[str, Any]) -> bytes:
    """A JSON object that is to have more members."""
    return orjson.dumps(members)[:-1]


def page(snapshot: Snapshot, refresh: bool) -> Slices[bytes]:
    """The page for people: as many rows as it has room for."""
    agents: Rows = []
    cluster_agents: Rows = []
    yield from snapshot.agents(agents.extend, statuspage.MAX_AGENTS)
    yield from snapshot.cluster_agents(cluster_agents.extend, statuspage.MAX_AGENTS)
    document = yield from snapshot.totals()
    document["agents"] = agents
    if document["cluster"] is not None:
        document["cluster"]["agents"] = cluster_agents
    yield
    return statuspage.render(document, refresh)


def json_response(status: int, body: dict[str, Any]) -> Response:
    return Response(status, JSON, orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE))


def healthz(request: Request) -> Response:
    """The process answers: always ok."""
    return json_response(200, {"status": "ok"})


def readyz(readiness: Readiness) -> Response:
    """Whether the hub takes traffic."""
    return json_response(*readiness.answer())
