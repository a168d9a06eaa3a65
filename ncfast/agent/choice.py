"""Which of the URLs in the file is dialled next. Several may lead to one hub, and one, behind a balancer, to many."""

from __future__ import annotations

import random
from collections.abc import Sequence


class Choice:
    """For an owner they are taken in the file's order, for a standby those that may lead elsewhere."""

    def __init__(self, urls: Sequence[str], rng: random.Random) -> None:
        self._urls = urls
        self._rng = rng
        self._owner = 0
        self._standby = rng.randrange(len(urls))  # so that not all agents of a hub have the same other
        self._spared = ""  # whose hub went away when we claimed there
        self._leads: dict[str, str] = {}  # URL -> the hub that has answered there last
        self._useless: set[str] = set()  # that have led to the owner's hub, or to none that can take over

    # what is known

    def answered(self, url: str, replica_id: str) -> None:
        self._leads[url] = replica_id

    def begin_at(self, url: str) -> None:
        """An owner is sought there first, if our file names it."""
        if url in self._urls:
            self._owner = self._urls.index(url)

    def owns(self, url: str) -> None:
        """The hub that owns us is there, and what was found out beside another one counts no longer."""
        self.begin_at(url)
        self._spared = ""
        self._useless = {url}

    def of_no_use(self, url: str) -> None:
        """No standby is to be had there now."""
        self._useless.add(url)

    def look_again(self, url: str) -> None:
        """Others may be of use again, but not that of the owner."""
        self._useless = {url}

    def leave(self, url: str) -> None:
        """If we must dial for an owner, then not there next."""
        if self.for_owner() == url:
            self._owner += 1

    def refused(self, url: str, goes_away: bool) -> None:
        """Our claim was. Another process of a hub that goes away may grant it in a moment: that is tried once, for a
        hub that is in no cluster has our flows alone."""
        if goes_away and self._spared != url:
            self._spared = url
        else:
            self.leave(url)

    def leads(self, url: str) -> str | None:
        return self._leads.get(url)

    # what follows from it

    def for_owner(self) -> str:
        return self._urls[self._owner % len(self._urls)]

    def for_standby(self, target: str = "") -> str:
        """The next that may lead to another hub than the owner's, or to the one called `target`; if none has so far,
        the next of all, for a balancer may."""
        urls = self._others()
        if target:
            leading = [url for url in self._urls if self._leads.get(url) == target]
            urls = leading or [url for url in self._urls if url not in self._leads] or self._urls
        self._standby += 1
        return urls[self._standby % len(urls)]

    def drawn(self) -> str:
        """One for a standby, as if none were there."""
        return self._rng.choice(self._others())

    def _others(self) -> Sequence[str]:
        return [url for url in self._urls if url not in self._useless] or self._urls
