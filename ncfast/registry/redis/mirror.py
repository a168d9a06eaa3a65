"""The view as a mirror of the server's data: beats bring all that has changed, notices each change as it happens.

The server's history has a generation, drawn anew where its data were lost, and a version, which each change raises. All
changes up to `version` are in the view. One above it, that came before those between (by a notice after one that was
missed, or in the reply to a call of ours), is remembered as ahead, so that nothing older is taken for news.
"""

from __future__ import annotations

from typing import Protocol

from ncfast.net.seam import Net
from ncfast.observe import log
from ncfast.registry.entry import AgentEntry
from ncfast.registry.redis.scripts import PAGE
from ncfast.registry.view import View

_log = log.get("registry")

HINT_DELAY = 0.02  # seconds, at most, from a hint to the beat: several hints, one beat; several hubs, not at once


class Holder(Protocol):
    """The registry, which holds agents, and judges by that what is told of them."""

    def held(self) -> list[AgentEntry]: ...
    def holds(self, key: str) -> bool: ...

    def apply(self, key: str, record: bytes) -> None:
        """The server's entry of an agent, or that there is none."""

    def assert_again(self, keys: list[str]) -> None:
        """Agents that are held, and of which the server has no entry, or another one."""

    def beat_soon(self, delay: float = 0.0) -> None:
        """In `delay` seconds at most."""


class Mirror:
    """`lease` in seconds."""

    def __init__(self, holder: Holder, view: View, net: Net, lease: float) -> None:
        self._holder = holder
        self._view = view
        self._net = net
        self._lease = lease
        self.generation = b""
        self.version = 0  # all changes up to it are in the view
        self.paging = False  # the last beat had not room for all
        self._ahead: dict[str, int] = {}  # changes above it that are in the view already
        self._pulled: set[str] | None = None  # keys read so far, while all are read
        self._unconfirmed: set[str] = set()  # of a former generation: dropped unless asserted within a lease
        self._grace_until = 0.0

    @property
    def waits(self) -> bool:
        """Whether hubs may still assert what a former generation had."""
        return self._net.clock() < self._grace_until

    @property
    def settled(self) -> bool:
        """Whether nothing is ahead, and nothing waits to be asserted."""
        return not self._ahead and not self._unconfirmed

    def is_news(self, key: str, version: int) -> bool:
        """Whether a change is later than what the view has of the agent."""
        return version > max(self.version, self._ahead.get(key, 0))

    def put_ahead(self, key: str, version: int) -> None:
        """A change of ours is in the view."""
        self._ahead[key] = version

    def confirm(self, key: str) -> None:
        """The view has an entry of the agent that somebody holds."""
        self._unconfirmed.discard(key)

    # beats

    def begin_anew(self) -> None:
        """Behind a new connection may be another server."""
        self._ahead.clear()

    def take(self, generation: bytes, whole: bool, news: list[bytes]) -> None:
        """News of a beat, `whole` if they begin at the beginning. Unless it is `paging` then, `finish` follows."""
        if generation != self.generation:
            self._begin_generation(generation)
        if whole:
            self._pulled = set()
        for i in range(0, len(news), 3):
            key = news[i].decode(errors="replace")
            if self._pulled is not None:
                self._pulled.add(key)
            if int(news[i + 1]) >= self._ahead.get(key, 0):
                self._apply(key, news[i + 2])
        self.paging = len(news) == 3 * PAGE
        if self.paging:
            self.version = int(news[-2])

    def finish(self, version: int) -> None:
        """All up to `version` was told."""
        self.version = version
        self._ahead = {key: at for key, at in self._ahead.items() if at > version}
        self._finish_pull()
        self._drop_unconfirmed()

    def _begin_generation(self, generation: bytes) -> None:
        """The data are not those that we knew. What we routed by stays for a lease: the hubs are about to assert it."""
        if self.generation:
            held = len(self._holder.held())
            _log.warning("registry_data_lost", agents=held, detail="held agents are asserted again")
            self._unconfirmed = set(self._view.agents)
            self._grace_until = self._net.clock() + self._lease
        self.generation = generation
        self.version = 0
        self._ahead.clear()

    def _finish_pull(self) -> None:
        """All was read: what was not among it is gone."""
        if self._pulled is None:
            return
        pulled, self._pulled = self._pulled, None
        for key in [key for key in self._view.agents if key not in pulled and key not in self._ahead]:
            if key not in self._unconfirmed and not self._holder.holds(key):
                self._apply(key, b"")
        missing = [
            entry.key
            for entry in self._holder.held()
            if entry.key not in pulled or self._view.agent(entry.key) != entry
        ]
        if missing:
            self._holder.assert_again(missing)

    def _drop_unconfirmed(self) -> None:
        if self._unconfirmed and not self.waits:
            lost, self._unconfirmed = self._unconfirmed, set()
            for key in sorted(lost):
                if not self._holder.holds(key):
                    self._apply(key, b"")

    # notices

    def notice(self, generation: bytes = b"", said: bytes = b"", name: bytes = b"", record: bytes = b"") -> None:
        """A change, with the version that it has made."""
        if generation != self.generation or not said.isdigit():
            self._holder.beat_soon()
            return
        version, key = int(said), name.decode(errors="replace")
        if version <= self.version:
            return
        known = self._ahead.get(key, 0)  # a reply to a claim of ours may have been here first
        if version == self.version + 1 and not self.paging:
            self.version = version
            if known == version:
                del self._ahead[key]
        else:
            self._ahead[key] = max(version, known)
            if not self.paging:
                self._holder.beat_soon(HINT_DELAY)  # something between was missed
        if version > known:
            self._apply(key, record)

    def _apply(self, key: str, record: bytes) -> None:
        self.confirm(key)
        self._holder.apply(key, record)
