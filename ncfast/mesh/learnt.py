"""Which of the registry's URLs are dialled. Pure logic.

Whoever writes to Redis writes these, and must not make a hub knock at doors of their choice: a metadata service,
another socket of this machine, a path of some HTTP server. A URL of the file is the operator's own word, and none of
this holds for it.
"""

from __future__ import annotations

import ipaddress
import posixpath
import urllib.parse
from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError

from ncfast.config.ha import Mesh as MeshConfig
from ncfast.config.values import MeshUrl
from ncfast.mesh.host import Replica

MAX_ENTRIES = 256  # of the registry that are believed to have a URL; clusters have a handful of hubs
MAX_DIALS = 16  # at a time to URLs that only the registry knows
MAX_URL = 512  # characters

_URL: TypeAdapter[str] = TypeAdapter(MeshUrl)


class Learnt:
    """By one configuration."""

    def __init__(self, config: MeshConfig) -> None:
        self._mtls = config.require_mtls
        self._networks, self._names = [], set()
        for rule in config.allow:
            try:
                self._networks.append(ipaddress.ip_network(rule))
            except ValueError:
                self._names.add(rule.lower())
        own = urllib.parse.urlsplit(config.advertise or "")
        self._loopback = (config.listen is not None and config.listen.is_loopback) or _is_loopback(own.hostname or "")
        sockets = [str(config.listen_unix or ""), own.path if own.scheme == "unix" else ""]
        self._directories = {posixpath.dirname(path) for path in sockets if path}

    def choose(self, replicas: Iterable[Replica], known: Iterable[str]) -> dict[str, str]:
        """URLs to dial, each with the replica behind it. Those that are `known` come first, so that a crowd of new
        entries does not push out what was there."""
        had = set(known)
        fit = [one for one in replicas if one.mesh_url and self.fits(one.mesh_url)]
        fit.sort(key=lambda one: (one.mesh_url not in had, one.replica_id))
        return {one.mesh_url: one.replica_id for one in fit[:MAX_ENTRIES]}

    def fits(self, url: str) -> bool:
        """Whether a URL may be dialled, as far as it says by itself; where its host leads, `admits` is asked."""
        try:
            if len(url) > MAX_URL:
                return False
            parts = urllib.parse.urlsplit(_URL.validate_python(url))
        except (ValidationError, ValueError):
            return False
        if parts.scheme == "unix":
            return posixpath.normpath(parts.path) == parts.path and posixpath.dirname(parts.path) in self._directories
        if parts.scheme in ("ws", "wss") and parts.path != "/mesh":
            return False
        return not (self._mtls and parts.scheme in ("tcp", "ws"))

    def admits(self, host: str, address: str) -> bool:
        """Whether a connection to this address may be tried, for the URL's host. Without `ha.mesh.allow`: any but this
        machine's own, unless the mesh is on loopback, and those that are no machine's."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if self._networks or self._names:
            return any(ip in network for network in self._networks) or self._named(host.lower())
        if ip.is_loopback:
            return self._loopback
        return not (ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip == _BROADCAST)

    def _named(self, host: str) -> bool:
        return host in self._names or any(name.startswith(".") and host.endswith(name) for name in self._names)


_BROADCAST = ipaddress.ip_address("255.255.255.255")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
