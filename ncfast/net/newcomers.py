"""Connections that have not said yet who they are: how fast they may come, how many may wait, and who makes room.

An honest newcomer is served in milliseconds; one that stays was sent to take a place. So nobody is turned away for a
full house: the oldest connection of the source that has most makes room. Who floods evicts himself, and a source that
has nothing here yet, a balancer's health check say, always gets in. OpenSSH's MaxStartups, PerSourceMaxStartups and
PerSourceNetBlockSize (sshd_config(5)) are the model; it drops by lot, where we look at who has most.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

One = TypeVar("One")


def source_of(host: str) -> str:
    """Who a limit by source counts: an IPv4 address, or the /64 of an IPv6 address, which is the least that a customer
    is given (RFC 6177) and in which anybody may take any number of addresses. An IPv4 address in IPv6 clothes counts as
    IPv4, and a zone tells no two apart. What is no address stands for itself."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


class Newcomers(Generic[One]):
    """At most `most` at a time. `evict` ends one; it may call `leave` for it, or not."""

    def __init__(self, most: int, evict: Callable[[One], None]) -> None:
        self.most = most
        self._evict = evict
        self._all: dict[One, str] = {}  # oldest first
        self._by_source: dict[str, dict[One, None]] = {}  # each oldest first

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[One]:
        return iter(list(self._all))

    def __contains__(self, one: object) -> bool:
        return one in self._all

    def enter(self, one: One, source: str) -> None:
        """It has come; another one goes if it is one too many."""
        self._all[one] = source
        self._by_source.setdefault(source, {})[one] = None
        if len(self._all) > self.most:
            heaviest = max(self._by_source.values(), key=len)  # the first of several, which has been here longest
            oldest = next(iter(heaviest))
            self.leave(oldest)
            self._evict(oldest)

    def speaks_for(self, one: One, source: str) -> None:
        """It came from somebody who is believed to name others, and has named `source`. Nothing if it has left."""
        if one in self._all and self._all[one] != source:
            self.leave(one)
            self._all[one] = source
            self._by_source.setdefault(source, {})[one] = None

    def leave(self, one: One) -> None:
        """It is known now, or gone. Nothing if it has left."""
        source = self._all.pop(one, None)
        if source is not None:
            self._by_source[source].pop(one)
            if not self._by_source[source]:
                del self._by_source[source]
