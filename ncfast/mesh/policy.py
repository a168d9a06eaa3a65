"""Which ways in are open, and what each of them proves. Pure logic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from websockets.http11 import Request

from ncfast.mesh.trust import Credential, Refused, claims_certificate, forwarded, is_among, is_local

PASSED_ON = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")


@dataclass(frozen=True, slots=True)
class Policy:
    """`host` is the peer's address, None on a Unix socket; `names` are those of a client certificate that our own TLS
    for the mesh has verified, None without one."""

    require_mtls: bool
    secret: bool  # there is one, so that everybody will have to prove it
    trusted_proxies: Sequence[IPv4Network | IPv6Network]

    def of_frames(self, host: str | None, names: frozenset[str] | None) -> Credential:
        """What is known of a peer that begins with frames. Raises Refused."""
        if names is not None:
            return Credential("certificate", names)
        if host is None:
            return Credential("local")  # the socket file's permissions are the guard
        if self.require_mtls:
            raise Refused("plain", "require_mtls, and the peer does not speak TLS")
        return self._bare(is_local(host))

    def of_http(self, request: Request, host: str | None, names: frozenset[str] | None, private: bool) -> Credential:
        """The same for one that asks for /mesh. `private` says that it came to an address where only peers connect; on
        the public edge a local address proves nothing, since an ingress may stand there. Raises Refused."""
        headers = request.headers
        if request.path != "/mesh":
            raise Refused("path", "Not Found", 404)
        if headers.get_all("Origin"):
            raise Refused("origin", "browsers are not peers")
        if headers.get_all("Content-Length") or headers.get_all("Transfer-Encoding"):
            raise Refused("body", "a handshake has no body", 400)
        shown = claims_certificate(headers)
        if is_among(host, self.trusted_proxies):
            if shown or (names is None and (self.require_mtls or not self.secret)):
                return Credential("forwarded", forwarded(headers))
        elif shown:
            raise Refused("proxy_untrusted", "client certificate headers count only from ha.mesh.trusted_proxies")
        if names is not None:
            return Credential("certificate", names)
        if private and host is None:
            return Credential("local")
        if self.require_mtls:
            raise Refused("plain", "require_mtls, and no client certificate was shown")
        return self._bare(private and is_local(host) and not any(headers.get_all(name) for name in PASSED_ON))

    def _bare(self, local: bool) -> Credential:
        """Without any certificate, and none is required."""
        if local:
            return Credential("local")
        if self.secret:
            return Credential("secret")
        raise Refused("not_loopback", "without mutual TLS or ha.mesh.secret_file only peers of this machine are let in")
