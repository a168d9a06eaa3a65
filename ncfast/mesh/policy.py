"""Which ways are open, and what each of them proves, at the end that dials as at the one that listens. Pure logic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from websockets.http11 import Request

from ncfast.mesh.trust import Credential, Refused, claims_certificate, forwarded, is_among


@dataclass(frozen=True, slots=True)
class Policy:
    """`host` is the peer's address, None on a Unix socket; `names` are those of a certificate of the mesh's authority
    that TLS has verified, None without one; `machine` says that the peer is of our user on this machine, or root's."""

    require_mtls: bool
    secret: bool  # there is one, so that everybody will have to prove it
    trusted_proxies: Sequence[IPv4Network | IPv6Network]

    def of_answer(self, scheme: str, names: frozenset[str] | None, machine: bool, listed: bool) -> Credential:
        """What is known of whoever answers a URL; `listed` says that the file has it, and not the registry alone. An
        ingress (wss://) has shown that it is the URL's host, and nothing of the replica behind it. Without a secret it
        is believed if the operator has named it, as those of `trusted_proxies` are. Raises Refused."""
        if names is not None:
            return Credential("certificate", names)
        if scheme == "wss" and listed and not self.secret:
            return Credential("ingress")
        return self._bare(machine, scheme == "wss", f"require_mtls, and {scheme}:// shows no certificate")

    def of_frames(self, names: frozenset[str] | None, machine: bool) -> Credential:
        """What is known of a peer that begins with frames. Raises Refused."""
        if names is not None:
            return Credential("certificate", names)
        return self._bare(machine, False, "require_mtls, and the peer does not speak TLS")

    def of_http(self, request: Request, host: str | None, names: frozenset[str] | None, machine: bool) -> Credential:
        """The same for one that asks for /mesh. Raises Refused."""
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
        return self._bare(machine, False, "require_mtls, and no client certificate was shown")

    def _bare(self, machine: bool, by_ingress: bool, plain: str) -> Credential:
        """Without a certificate. That a peer is on this machine proves nothing: anybody's process may be."""
        if machine:
            return Credential("machine")
        if self.require_mtls and not by_ingress:
            raise Refused("plain", plain)
        if self.secret:
            return Credential("secret")
        raise Refused(
            "unproven", "neither certificate nor ha.mesh.secret_file: nothing would prove which replica it is"
        )
