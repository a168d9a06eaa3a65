"""A token bound to the client certificate that its bearer shows: then a stolen token alone opens nothing.

Two bindings, both exact. The issuer's: the claim `cnf` with `x5t#S256`, the SHA-256 of the certificate (RFC 8705,
section 3.1). The operator's: `auth.jwt.certificate_name`, a name that the certificate must carry, made of the token's
`sub` and `tenant`. Pure logic; where the certificate comes from is the edge's to say.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

from ncfast.auth.errors import AuthError
from ncfast.auth.identity import Identity

CONFIRMATION, THUMBPRINT = "cnf", "x5t#S256"  # RFC 7800, section 3.1; RFC 8705, section 3.1
_SHA256 = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 bytes in base64url


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What is known of the certificate that a connection was opened with: its SHA-256, None where an ingress does not
    say it, and its alternative names as "DNS:site-1", "URI:spiffe://example.net/site-1"."""

    thumbprint: bytes | None
    names: frozenset[str]


def thumbprint(der: bytes) -> bytes:
    """The SHA-256 of a certificate."""
    return hashlib.sha256(der).digest()


def confirmation(value: bytes) -> dict[str, str]:
    """The claim `cnf` for a certificate of this SHA-256."""
    return {THUMBPRINT: urlsafe_b64encode(value).decode("ascii").rstrip("=")}


def confirmed(claims: dict[str, Any]) -> bytes | None:
    """The SHA-256 of the certificate that the token is bound to; None: it is bound to none.

    A `cnf` of another kind raises AuthError, too: an issuer that binds a token to a key does not mean it for whoever
    holds it, and that we cannot check the proof makes a bearer token of it no more.
    """
    if CONFIRMATION not in claims:
        return None
    value = claims[CONFIRMATION]
    text = value.get(THUMBPRINT) if isinstance(value, dict) else None
    if not isinstance(text, str) or _SHA256.fullmatch(text) is None:
        raise AuthError("confirmation")
    digest = urlsafe_b64decode(text + "=")
    if confirmation(digest)[THUMBPRINT] != text:  # bits left over: each digest has one spelling
        raise AuthError("confirmation")
    return digest


def check_bearer(identity: Identity, certificate: ClientCertificate | None, name: str | None) -> None:
    """Raises AuthError unless the certificate, None for none, is the one that token and configuration ask for.

    `name` is `auth.jwt.certificate_name`, such as "DNS:{sub}".
    """
    if identity.certificate is not None:
        if certificate is None or certificate.thumbprint is None:
            raise AuthError("certificate_missing")
        if not hmac.compare_digest(certificate.thumbprint, identity.certificate):
            raise AuthError("certificate_mismatch")
    if name is not None:
        if certificate is None:
            raise AuthError("certificate_missing")
        if "{tenant}" in name and identity.tenant is None:
            raise AuthError("certificate_name")
        wanted = name.replace("{tenant}", identity.tenant or "").replace("{sub}", identity.agent_id)
        if wanted not in certificate.names:
            raise AuthError("certificate_name")
