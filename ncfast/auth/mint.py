"""Development tokens: HS256, from the same secret the hub reads."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable

from ncfast.auth.certificate import CONFIRMATION, confirmation
from ncfast.auth.identity import is_safe_name
from ncfast.auth.keys import SYMMETRIC, secret_key
from ncfast.auth.verifier import MAX_CONNECTORS, MAX_LIFETIME_SEC


def mint(
    key: bytes,
    agent_id: str,
    connectors: Iterable[str] | None,
    tenant: str | None = None,
    ttl: int = 3600,
    audience: str = "nowconnect",
    issuer: str = "ncfast-dev",
    now: float | None = None,
    certificate: bytes | None = None,
) -> str:
    """A signed token for `agent_id`, valid for `ttl` seconds from `now` (unix seconds, default the clock).

    `connectors` None lets the agent announce any connector; `certificate` is the SHA-256 of the client certificate that
    the token is bound to, None for a bearer token. Raises `ValueError` for what no hub would accept,
    and `AuthSetupError` for an unfit `key`.
    """
    secret_key(key)
    issued_at = int(time.time() if now is None else now)
    if not 0 < ttl <= MAX_LIFETIME_SEC:
        raise ValueError(f"ttl {ttl}: must be 1 to {MAX_LIFETIME_SEC} seconds")
    claims: dict[str, object] = {
        "sub": _checked("agent id", agent_id),
        "aud": audience,
        "iss": issuer,
        "iat": issued_at,
        "exp": issued_at + int(ttl),
        "jti": secrets.token_hex(16),
    }
    if connectors is not None:
        names = sorted({_checked("connector", name) for name in connectors})
        if len(names) > MAX_CONNECTORS:
            raise ValueError(f"more than {MAX_CONNECTORS} connectors in one token")
        claims["connectors"] = names
    if certificate is not None:
        claims[CONFIRMATION] = confirmation(certificate)
    if tenant is not None:
        claims["tenant"] = _checked("tenant", tenant)
    import jwt  # heavy, and of no use to a hub that only judges tokens

    return jwt.encode(claims, key, algorithm=SYMMETRIC)


def _checked(what: str, name: str) -> str:
    if not is_safe_name(name):
        raise ValueError(f"{what} {name!r}: use 1 to 128 letters, digits, '.', '_', '-', the first no sign")
    return name
