"""What ties a proof of the secret to one connection. Pure logic, but for what a transport says of itself.

The dialler says in HELLO what it has dialled, where it arrived, and through which TLS channel; both proofs cover that,
so nobody in between can change it. The listener proves nothing to a HELLO that does not fit its own end.

- TLS that the listener ends itself: the channel must be the same at both ends. It is the client's Finished message of
  the handshake ("tls-unique", RFC 5929): a keyed hash over all that was said, so that two connections never have the
  same. The exporter (RFC 9266) would serve as well, but Python does not offer it. What is said against tls-unique is
  resumption and renegotiation, and the mesh has neither.
- No TLS at either end: the dialler must have arrived where the listener was reached.
- Otherwise something in between has ended TLS, or passed the connection on: the URL must be one of the listener's own.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ncfast.mesh.handshake import Hello

DEFAULT_PORTS = {"ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class Binding:
    """One end's view of a connection. `place` is the listener's address: as it was reached, at the listener, and as it
    was found, at the dialler; `channel` is "" without TLS; `url` is the dialler's."""

    place: str = ""
    channel: str = ""
    url: str = ""


def dialled(transport: Any, url: str) -> Binding:
    """The dialler's."""
    return Binding(place(transport.get_extra_info("peername")), _channel(transport), url)


def accepted(transport: Any) -> Binding:
    """The listener's."""
    return Binding(place(transport.get_extra_info("sockname")), _channel(transport))


def place(address: Any) -> str:
    """A socket's address as both ends write it: "192.0.2.1:9500", "[2001:db8::1]:9500", "unix:/run/hub-a.sock"; "" for
    what is none."""
    if isinstance(address, bytes):
        address = address.decode(errors="replace")
    if isinstance(address, str):
        return f"unix:{address}" if address else ""
    try:
        host = ipaddress.ip_address(address[0].partition("%")[0])
    except (TypeError, ValueError, IndexError, AttributeError):
        return ""
    if isinstance(host, ipaddress.IPv6Address):
        if host.ipv4_mapped is None:
            return f"[{host}]:{address[1]}"
        host = host.ipv4_mapped
    return f"{host}:{address[1]}"


def _channel(transport: Any) -> str:
    secured = transport.get_extra_info("ssl_object")
    if secured is None:
        return ""
    finished: bytes | None = secured.get_channel_binding("tls-unique")
    return (finished or b"").hex()


def fits(hello: Hello, own: Binding, *, ended_here: bool, urls: Iterable[str]) -> bool:
    """Whether a HELLO was meant for this end of the connection. `ended_here`: TLS, if there is any, is between the
    dialler and us, and not an ingress's own; `urls` are those under which we are known."""
    if own.channel and ended_here:
        return hello.channel == own.channel
    if not own.channel and not hello.channel and hello.place and hello.place == own.place:
        return True
    return bool(hello.url) and normal(hello.url) in {normal(url) for url in urls}


def normal(url: str) -> tuple[str, str, int | None, str]:
    """A URL's parts, so that two spellings of one address are equal."""
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme), parts.path
    except ValueError:
        return "", "", None, ""
