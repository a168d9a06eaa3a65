"""The admin edge: metrics, status, flows, health on a port of their own that is never the public one; and what changes
things, or shows the process's inside, which is done there or at a Unix socket, as `ncfast.hub.guard` has it.

What costs by the number of agents is made in slices, one answer at a time, while the loop serves everybody else.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable
from typing import Any, Protocol

import orjson
from pydantic import BaseModel
from websockets.http11 import Request

from ncfast.config.hub import Admin as AdminConfig
from ncfast.hub.flows import NoSuchFlow, Query, QueryRefused
from ncfast.hub.guard import Guard
from ncfast.hub.level import MoveRefused
from ncfast.hub.lockout import LockRefused
from ncfast.hub.page import Page
from ncfast.net.acceptor import Acceptor
from ncfast.net.origin import from_page
from ncfast.net.ports import wanted_by
from ncfast.net.request import Answer, HttpLimits, HttpServer, Response
from ncfast.net.routes import EXPOSITION, JSON, Routes, healthz, json_response, path_of, unfit
from ncfast.net.seam import Net
from ncfast.net.tls import server_context
from ncfast.net.upgrading import begun, standing
from ncfast.observe import diag, log, metrics
from ncfast.observe.history import History
from ncfast.observe.readiness import Readiness
from ncfast.observe.slices import Shared, Slices, spread
from ncfast.observe.upgrading import Upgrades
from ncfast.registry import Lock
from ncfast.registry.locks import REASON

_log = log.get("hub")

Rows = list[dict[str, Any]]


class Snapshot(metrics.Totals, Protocol):
    """What the admin edge shows of a hub."""

    def agents(self, take: Callable[[Rows], object]) -> Slices[None]: ...
    def cluster_agents(self, take: Callable[[Rows], object]) -> Slices[None]: ...
    def talkers(self) -> Slices[Rows]: ...


class Lockout(Protocol):
    """What the admin edge needs to lock agents out; see `ncfast.hub.lockout`."""

    def kick(self, agent: str, tenant: str | None, seconds: float, reason: str = "") -> Lock: ...
    def unlock(self, agent: str, tenant: str | None) -> Lock: ...
    def knows(self, key: str) -> bool: ...


class Flows(Protocol):
    """What the admin edge shows of flows, and does to them; see `ncfast.hub.flows`."""

    def select(self, query: Query) -> Slices[dict[str, Any]]: ...
    def kill(self, cid: str) -> dict[str, Any]: ...


class Hub(metrics.Hub, Protocol):
    """What the admin edge needs of a hub."""

    readiness: Readiness

    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def history(self) -> History: ...

    def request_drain(self, *, at_once: bool = False) -> bool: ...
    def move_agent(self, agent: str, hub: str | None) -> str: ...

    @property
    def lockout(self) -> Lockout: ...

    @property
    def flow_list(self) -> Flows: ...

    @property
    def config(self) -> BaseModel: ...

    upgrades: Upgrades | None


HOUR = "3600"  # seconds of a lock, if nobody says


class Admin:
    """Answers the admin edge's requests for one hub."""

    def __init__(self, hub: Hub, net: Net, limits: HttpLimits = HttpLimits()) -> None:
        self._hub = hub
        self._net = net
        turn = self._turn = asyncio.Lock()
        self._metrics = Shared(metrics.Metrics(hub).exposition, turn, net.spawn)
        self._status = Shared(lambda: spread(status(hub.snapshot)), turn, net.spawn)
        page = Page(hub, turn, net.spawn)
        self._http = HttpServer(self.handle, limits, net)
        self._server: Acceptor | None = None
        self._unix: Acceptor | None = None
        self._guard: Guard | None = None
        self._routes: Routes = {
            "/": ("GET", page.html),
            "/live": ("GET", page.live),
            "/metrics": ("GET", self._metrics_text),
            "/status": ("GET", self._status_json),
            "/flows": ("GET", self._flows),
            "/healthz": ("GET", healthz),
            "/readyz": ("GET", lambda request: readyz(hub.readiness)),
            "/drain": ("POST", self._drain),
            "/upgrade": ("POST", lambda request: begun(hub.upgrades)),
            "/upgrade/state": ("GET", lambda request: standing(hub.upgrades)),
            "/agents/move": ("POST", self._move),
            "/agents/kick": ("POST", self._kick),
            "/agents/unlock": ("POST", self._unlock),
            "/flows/kill": ("POST", self._kill),
            **{f"/diag/{name}": ("GET", self._diag) for name in diag.PARTS},
        }

    async def start(self, config: AdminConfig) -> None:
        """Opens the edge. Raises OSError when it cannot be bound, or a file is of no use; nothing stays open then."""
        guard = self._guard = Guard(config)
        context = server_context(config.tls, "admin.tls") if config.tls is not None else None
        with wanted_by("admin.bind"):
            self._server = await self._net.listen(
                config.bind, lambda sock, peer: self._http.accept(sock, peer, context), use="admin"
            )
        if config.unix is not None:
            try:
                with wanted_by("admin.unix"):
                    self._unix = await self._net.listen_unix(
                        str(config.unix),
                        lambda sock, peer: self._http.accept(sock, None, None, self.handle_local),
                        use="admin",
                    )
            except OSError:
                self.close()
                raise
        if not config.bind.is_loopback:
            _log.warning(
                "admin_exposed",
                admin=self.address,
                changes=guard.changes,
                tls=context is not None,
                detail="whoever reaches it reads metrics and status; keep it on loopback or a management network",
            )

    @property
    def address(self) -> str:
        """host:port as bound; "" if nowhere yet."""
        return self._server.address if self._server is not None else ""

    def hold(self) -> None:
        """Stops accepting for a while; connections that are open are answered."""
        for acceptor in self._acceptors():
            acceptor.hold()

    def go_on(self) -> None:
        """Accepts again."""
        for acceptor in self._acceptors():
            acceptor.go_on()

    def _acceptors(self) -> list[Acceptor]:
        return [one for one in (self._server, self._unix) if one is not None]

    def shut(self) -> None:
        """Stops listening; connections that are open are answered."""
        for acceptor in self._acceptors():
            acceptor.close()

    def close(self) -> None:
        """Stops listening and ends open connections."""
        self.shut()
        self._http.close()

    def handle(self, request: Request) -> Answer:
        """A request at the TCP port."""
        return self._handle(request, self._guard)

    def handle_local(self, request: Request) -> Answer:
        """One at the Unix socket."""
        return self._handle(request, None)

    def _handle(self, request: Request, guard: Guard | None) -> Answer:
        path = path_of(request)
        change = self._routes[path][0] == "POST" if path in self._routes else False
        guarded = change or path.startswith("/diag/")
        if guard is not None and (refusal := guard.refusal(request, change=guarded)) is not None:
            return refusal
        if (refusal := unfit(self._routes, request)) is not None:
            return refusal
        if guarded and (refusal := from_page(request)) is not None:
            return refusal
        return self._routes[path][1](request)

    async def _metrics_text(self, request: Request) -> Response:
        return Response(200, EXPOSITION, await self._metrics.get())

    async def _status_json(self, request: Request) -> Response:
        return Response(200, JSON, await self._status.get())

    async def _flows(self, request: Request) -> Response:
        """``?order=``, ``&top=``, ``&listener=``, ``&agent=``, ``&client=``."""
        try:
            query = Query.read(request.path.partition("?")[2])
        except QueryRefused as exc:
            return Response.text(400, f"Bad Request: {exc}")
        async with self._turn:
            return json_response(200, await spread(self._hub.flow_list.select(query)))

    async def _diag(self, request: Request) -> Response:
        name = request.path.partition("?")[0].removeprefix("/diag/")
        async with self._turn:
            return Response(200, diag.PARTS[name], await spread(diag.part(name, lambda: self._hub.config)))

    def _drain(self, request: Request) -> Response:
        self._hub.request_drain(at_once=request.path.endswith("?delay=off"))
        return json_response(202, {"state": "draining"})

    def _move(self, request: Request) -> Response:
        """``?agent=`` and, if it is to be a certain one, ``&hub=``."""
        asked = _asked(request)
        if "agent" not in asked:
            return Response.text(400, "Bad Request: which agent? ?agent=site-1&hub=hub-b")
        try:
            hub = self._hub.move_agent(asked["agent"], asked.get("hub"))
        except MoveRefused as exc:
            return Response.text(409, str(exc))
        return json_response(202, {"agent": asked["agent"], "hub": hub})

    def _kick(self, request: Request) -> Response:
        """``?agent=``, and if it is to be so ``&tenant=``, ``&for=`` (seconds; 0 lifts the lock) and ``&reason=``."""
        asked = _asked(request)
        try:
            seconds = float(asked.get("for", HOUR))
        except ValueError:
            seconds = -1.0
        if "agent" not in asked or not 0 <= seconds < 1e9:
            return Response.text(400, "Bad Request: which agent, for how many seconds? ?agent=site-1&for=3600")
        reason = asked.get("reason", "")
        if REASON.fullmatch(reason) is None:
            return Response.text(400, "Bad Request: a reason is 200 letters, digits, blanks and .,:;_/#@()- at most")
        return self._locked(lambda: self._hub.lockout.kick(asked["agent"], asked.get("tenant"), seconds, reason))

    def _unlock(self, request: Request) -> Response:
        """``?agent=``, and ``&tenant=``."""
        asked = _asked(request)
        if "agent" not in asked:
            return Response.text(400, "Bad Request: which agent? ?agent=site-1")
        return self._locked(lambda: self._hub.lockout.unlock(asked["agent"], asked.get("tenant")))

    def _kill(self, request: Request) -> Response:
        """``?cid=``"""
        try:
            row = self._hub.flow_list.kill(_asked(request).get("cid", ""))
        except NoSuchFlow as exc:
            return Response.text(409, str(exc))
        return json_response(202, row)

    def _locked(self, change: Callable[[], Lock]) -> Response:
        try:
            lock = change()
        except LockRefused as exc:
            return Response.text(409, str(exc))
        known = self._hub.lockout.knows(lock.key)
        return json_response(
            202, {"agent": lock.key.removeprefix("/"), "until": lock.until, "locked": not lock.lifted, "known": known}
        )


def _asked(request: Request) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(request.path.partition("?")[2]))


def status(snapshot: Snapshot) -> Slices[list[bytes]]:
    """The document of /status, in parts: with thousands of agents it has megabytes."""
    agents: list[bytes] = []
    cluster_agents: list[bytes] = []
    yield from snapshot.agents(lambda rows: _append(agents, rows))
    yield from snapshot.cluster_agents(lambda rows: _append(cluster_agents, rows))
    talkers = yield from snapshot.talkers()
    document = yield from snapshot.totals()
    document["talkers"] = talkers
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


def readyz(readiness: Readiness) -> Response:
    """Whether the hub takes traffic."""
    return json_response(*readiness.answer())
