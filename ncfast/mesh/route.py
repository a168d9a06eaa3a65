"""A peer's URL: when it is dialled, and when it is left alone."""

from __future__ import annotations

import asyncio
import urllib.parse
from typing import TYPE_CHECKING

from ncfast.core.errors import Reason
from ncfast.mesh.breaker import STEADY, TRIP, Breaker
from ncfast.mesh.dial import DialFailed, dial
from ncfast.mesh.peer import Peer
from ncfast.mesh.states import LinkEvent, LinkState, Way
from ncfast.observe import log

if TYPE_CHECKING:
    from ncfast.mesh.manager import Mesh

_log = log.get("mesh")

HEAD_START = 0.2  # seconds that the hub whose dial would have to yield leaves to the other after a link is lost


class Route(Way):
    """A URL from the configuration ("config") or the registry ("registry"): `listed` says from where. `replica_id` is
    who is behind it as far as is known."""

    def __init__(self, mesh: Mesh, url: str, replica_id: str = "") -> None:
        super().__init__(LinkState.BACKOFF, mesh.net.clock)
        self.mesh = mesh
        self.url = url
        self.replica_id = replica_id
        self.instance = ""  # of the replica, as the registry has it
        self.listed: set[str] = set()
        self.own = False  # it leads to ourselves
        self.breaker = Breaker(mesh.net.rng, mesh.config.connect_backoff_max_sec)
        self.attempts = 0
        self._began = 0.0  # the latest one
        self.errors = 0
        self.last_error = ""
        self.last_error_at = 0.0
        self._peer: Peer | None = None  # on the link that it has made
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def expects(self) -> str:
        """Who must answer: where the registry alone says that there is a hub, the one that it names. A URL of the file
        leads to whichever replica proves to be one."""
        return "" if "config" in self.listed else self.replica_id

    def _covered(self) -> bool:
        """After the end of an attempt: whether another link to the replica stands, and what becomes of us then. Should
        ours be the one that stays, it is tried once more since the other came up."""
        standing = self.mesh.peer(self.replica_id) if self.replica_id else None
        if standing is None or standing.way is self or standing.parted:
            return False
        if self.mesh.may_rest(self) or standing.since < self._began:
            self.move(LinkEvent.SPARED)
        else:
            self.move(LinkEvent.FAILED)
            self.begin()
        return True

    def begin(self, pause: float = 0.0) -> None:
        """Dials after `pause` seconds."""
        self._cancel_timer()
        self._timer = self.mesh.net.call_later(pause, self._attempt)

    def lead_to(self, replica_id: str) -> None:
        """The registry has another replica at this address than the one that was there, or that we took for it."""
        if self.state not in (LinkState.UP, LinkState.DRAINING):
            self.replica_id = replica_id
            self.own = False
            self.wake(0.0)

    def hurry(self) -> None:
        """Dials now, if it is waiting to: there is a sign of life."""
        if self.state is LinkState.BACKOFF:
            self.begin()

    def rest(self) -> None:
        """Nothing to do here, if nothing is under way."""
        if self.state is LinkState.BACKOFF:
            self._cancel_timer()
            self.move(LinkEvent.SPARED)

    def wake(self, pause: float) -> None:
        """The link that stood for it is gone."""
        if self.state is LinkState.RESTING and not self.own:
            self.move(LinkEvent.NEEDED)
            self.begin(pause)

    def drop(self) -> None:
        """The end of it; a link that stands lives on."""
        self._cancel_timer()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self.state is not LinkState.LOST:
            unfinished = self.state is LinkState.HANDSHAKING
            self.move(LinkEvent.DROPPED)
            if unfinished and self._peer is not None:
                self._peer.link.fail(Reason.GOING_AWAY, "the URL is no longer listed")

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _attempt(self) -> None:
        self._timer = None
        self.move(LinkEvent.DIAL)
        self.attempts += 1
        self._began = self.mesh.net.clock()
        self.breaker.attempt()
        self._task = self.mesh.net.spawn(self._dial(), "mesh-dial")

    async def _dial(self) -> None:
        try:
            peer = await self._reach()
        except DialFailed as exc:
            self._task = None
            self._failed(exc.reason, exc.detail)
        except Exception:
            _log.exception("mesh_dial_failed", url=self.url)
            self._task = None
            self._failed("internal", "a defect")
        else:
            self._task = None
            self.move(LinkEvent.CONNECTED)
            self._peer = peer
            self.mesh.greet(peer)
            peer.start()

    async def _reach(self) -> Peer:
        if "config" in self.listed:
            return await dial(self.mesh, self, self.url)
        learnt, host = self.mesh.learnt, urllib.parse.urlsplit(self.url).hostname or ""
        async with self.mesh.dials:
            return await dial(self.mesh, self, self.url, lambda address: learnt.admits(host, address))

    def _failed(self, reason: str, detail: str) -> None:
        if self.state is LinkState.LOST:
            return
        self.errors += 1
        self.mesh.stats.mesh_errors += 1
        again = reason == self.last_error and self.breaker.failures
        self._blame(reason)
        pause = 0.0 if self._covered() else self._back_off()
        level = _log.debug if again and self.breaker.failures != TRIP else _log.warning
        level(
            "mesh_dial_failed",
            url=self.url,
            reason=reason,
            detail=detail,
            attempt=self.attempts,
            delay_sec=round(pause, 3),
        )

    def _blame(self, reason: str) -> None:
        self.last_error, self.last_error_at = reason, self.mesh.net.clock()

    def _back_off(self) -> float:
        pause = self.breaker.failed()
        self.move(LinkEvent.FAILED)
        self.begin(pause)
        return pause

    def ended(self, peer: Peer, reason: Reason) -> None:
        """The link that it made is over."""
        self._peer = None
        if self.state is LinkState.LOST:
            return
        if peer.failure == "ourselves":
            self.own = True
            self.move(LinkEvent.SPARED)
            _log.info("mesh_own_url", url=self.url)
        elif not self._covered():
            self._blame(peer.failure or reason.label)
            if peer.established and self.mesh.net.clock() - peer.since >= STEADY:
                self.breaker.succeeded()
            self._back_off()
