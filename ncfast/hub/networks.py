"""Access lists: whether an address is in one of several networks."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

_MAPPED = bytes(10) + b"\xff\xff"  # what an IPv4 address in IPv6 clothes begins with (RFC 4291, section 2.5.5.2)


class Networks:
    """Sets of numbers by family and length of prefix: an address costs a look-up for each length that there is, however
    many networks there are, and no object."""

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        self._prefixes: dict[int, dict[int, set[int]]] = {4: {}, 16: {}}  # by bytes of an address, then bits behind it
        for one in networks:
            behind = one.max_prefixlen - one.prefixlen
            family = self._prefixes[one.max_prefixlen // 8]
            family.setdefault(behind, set()).add(int(one.network_address) >> behind)

    def __contains__(self, host: str) -> bool:
        """`host` is an IP address, with a zone or without; an IPv4 address in IPv6 clothes counts as IPv4. Raises
        OSError for what is none."""
        if ":" in host:
            address = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
            if address.startswith(_MAPPED):
                address = address[12:]
        else:
            address = socket.inet_pton(socket.AF_INET, host)
        number = int.from_bytes(address)
        for behind, prefixes in self._prefixes[len(address)].items():
            if number >> behind in prefixes:
                return True
        return False
