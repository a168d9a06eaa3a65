"""The page for people, and those who follow it: gathered from the hub here, drawn by `ncfast.observe.page`.

Readers who ask for the same share one page, and a page is made a slice at a time. None of what draws it is loaded
before somebody looks: most hubs are never looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from websockets.http11 import Request

from ncfast.net.request import Answer, Response, Stream
from ncfast.observe import log, metrics
from ncfast.observe.history import PERIOD, History
from ncfast.observe.slices import Shared, Slices, spread

if TYPE_CHECKING:
    from ncfast.observe.page.view import View

VIEWS = 16  # that are remembered
READERS = 8  # who follow the page at once
PATIENCE = 30.0  # seconds that a reader may leave a page unread

Rows = list[dict[str, Any]]


class Snapshot(metrics.Totals, Protocol):
    """What the page shows of a hub."""

    def agents(self, take: Callable[[Rows], object]) -> Slices[None]: ...
    def cluster_agents(self, take: Callable[[Rows], object]) -> Slices[None]: ...
    def talkers(self) -> Slices[Rows]: ...


class Hub(metrics.Hub, Protocol):
    """What the page needs of a hub."""

    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def history(self) -> History: ...


class Page:
    """Answers for `/` and `/live`. `turn` and `spawn` are as `Shared` has them."""

    def __init__(self, hub: Hub, turn: asyncio.Lock, spawn: Callable[[Coroutine[Any, Any, Any], str], object]) -> None:
        self._hub = hub
        self._turn = turn
        self._spawn = spawn
        self._made: dict[View, Shared[bytes]] = {}  # the one asked for last stands last
        self._readers = 0

    async def html(self, request: Request) -> Response:
        """The page as it is now."""
        from ncfast.observe.page.layout import SECURITY_POLICY

        page = await self._page(_view(request))
        return Response(200, "text/html; charset=utf-8", page, (("Content-Security-Policy", SECURITY_POLICY),))

    def live(self, request: Request) -> Answer:
        """The page again and again, each as a JSON string. For our own page: another's could hold a reader's place."""
        if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return Response.text(403, "Forbidden: not for another page")
        if self._readers >= READERS:
            return Response.text(503, f"Service Unavailable: {READERS} readers follow the page already")
        view = _view(request)
        return Stream(lambda send: self._follow(view, send), PATIENCE)

    async def _follow(self, view: View, send: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        self._readers += 1
        try:
            while True:
                await send(orjson.dumps((await self._page(view)).decode()))
                await asyncio.sleep(PERIOD)  # curves do not move in between
        finally:
            self._readers -= 1

    async def _page(self, view: View) -> bytes:
        shared = self._made.pop(view, None) or Shared(lambda: spread(page(self._hub, view)), self._turn, self._spawn)
        self._made[view] = shared
        if len(self._made) > VIEWS:
            del self._made[next(iter(self._made))]
        return await shared.get()


def _view(request: Request) -> View:
    from ncfast.observe.page.view import View

    return View.of(request.path.partition("?")[2])


def page(hub: Hub, view: View) -> Slices[bytes]:
    """Every agent is looked at, and those that were asked for are shown."""
    from ncfast.observe.page.agents import Chosen
    from ncfast.observe.page.document import Material, render
    from ncfast.observe.page.findings import token_ends_soon
    from ncfast.observe.page.picture import Census
    from ncfast.observe.page.view import ROWS

    census = Census()
    here: Rows = []
    ending: Rows = []
    everywhere: Rows = []
    count = found = 0

    def take(rows: Rows) -> None:
        nonlocal count
        count += len(rows)
        census.add_here(rows)
        ending.extend(filter(token_ends_soon, rows))
        here.extend(filter(view.takes, rows))

    def take_everywhere(rows: Rows) -> None:
        nonlocal found
        census.add_cluster(rows)
        taken = list(filter(view.takes, rows))
        found += len(taken)
        everywhere.extend(taken[: ROWS - len(everywhere)])

    yield from hub.snapshot.agents(take)
    yield from hub.snapshot.cluster_agents(take_everywhere)
    yield
    chosen = view.chosen(here)
    yield
    document = yield from hub.snapshot.totals()
    document["talkers"] = yield from hub.snapshot.talkers()
    document |= {"ending": ending, "config_refused": hub.stats.config_refused}
    yield
    material = Material(
        document, Chosen(chosen, len(here), count), Chosen(everywhere, found, found), census, hub.history, log.notable()
    )
    return (yield from render(material, view))
