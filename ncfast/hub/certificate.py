"""Which client certificate a request to `/tunnel` came with: what TLS here saw, or what an ingress says it saw."""

from __future__ import annotations

from typing import Any

from ncfast.auth import ClientCertificate, thumbprint
from ncfast.config.hub import Edge
from ncfast.mesh.trust import Headers, Refused, forwarded, forwarded_thumbprint, names_in_der

NONE_SHOWN = "no_client_certificate"


def prepare(edge: Edge) -> None:
    """Loads what reads certificates where some are to be shown: 40 ms that the first of them would wait for, and all
    others with it."""
    if edge.forwarded_certificates or (edge.tls is not None and edge.tls.client_ca_file is not None):
        import cryptography.x509  # noqa: F401


def of_connection(transport: Any) -> ClientCertificate | None:
    """What the connection's own TLS has verified; None without TLS, or where none was asked for."""
    secured = transport.get_extra_info("ssl_object")
    der = secured.getpeercert(True) if secured is not None else None
    if not der:
        return None
    try:
        names = names_in_der(der)
    except Refused:  # names that cannot be read name nobody
        names = frozenset()
    return ClientCertificate(thumbprint(der), names)


def of_ingress(headers: Headers) -> ClientCertificate | None:
    """What the headers of an ingress say, which is trusted to set and so to overwrite them; None where it says that it
    has seen none. Raises Refused for what an honest ingress does not send."""
    try:
        names = forwarded(headers)
    except Refused as exc:
        if exc.reason == NONE_SHOWN:
            return None
        raise
    return ClientCertificate(forwarded_thumbprint(headers), names)
