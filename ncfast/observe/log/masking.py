"""How client addresses and identities are shown in logs and on the status edge.

``none`` shows them, ``truncate`` keeps the network (IPv4 /24, IPv6 /48) and the first three characters of a
name, ``hash`` replaces them by a keyed digest: the same client keeps the same digest, and without the key
nobody can try out the four billion addresses of IPv4.
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address

RULES = ("none", "truncate", "hash")
KEPT = 4096  # hosts, and names, whose masked form is remembered: most clients come again; some 2 MiB at most


class Mask:
    """One rule, applied to addresses (``1.2.3.4:5``, ``[2001:db8::1]:5``, also without port) and to names."""

    __slots__ = ("_address", "_identity", "_rule", "_secret", "shows")

    def __init__(self, rule: str, secret: bytes) -> None:
        if rule not in RULES:
            raise ValueError(f"logging.mask must be one of {', '.join(RULES)}")
        self._rule = rule
        self.shows = rule == "none"
        self._secret = secret
        self._address = lru_cache(KEPT)(self._mask_address)
        self._identity = lru_cache(KEPT)(self._mask_identity)

    def address(self, text: str) -> str:
        """A client address by the rule; what is no IP address is masked as a name, never passed on as is."""
        if self.shows or not text:
            return text
        return self._address(_host(text)) or self.identity(text)

    def end(self, host: str, port: int) -> str:
        """What `address` makes of the two in one text."""
        if not self.shows and (masked := self._address(host)) is not None:
            return masked
        return self.address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def identity(self, text: str) -> str:
        """A name of an agent or a token's subject by the rule."""
        return text if self.shows or not text else self._identity(text)

    def _mask_address(self, host: str) -> str | None:
        address = _parse(host)
        if address is None:
            return None
        if self._rule == "hash":
            return self._digest("address", str(address))
        kept = 24 if address.version == 4 else 48
        network = int(address) >> (address.max_prefixlen - kept) << (address.max_prefixlen - kept)
        return f"{type(address)(network)}/{kept}"

    def _mask_identity(self, text: str) -> str:
        if self._rule == "hash":
            return self._digest("identity", text)
        return text[: min(3, len(text) - 1)] + "…"  # never the whole of a short name

    def _digest(self, kind: str, text: str) -> str:
        message = f"{kind}\0{text}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._secret, message, sha256).hex()[:12]


def _host(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _parse(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])  # without an IPv6 zone
    except ValueError:
        return None
    # A dual-stack socket shows IPv4 clients as ::ffff:1.2.3.4; /48 of that would lump them all together.
    return getattr(address, "ipv4_mapped", None) or address
