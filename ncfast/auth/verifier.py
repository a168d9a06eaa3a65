"""From a token's text to an `Identity`, or to an `AuthError` that says which check refused it.

The header is read and judged here, before any key is touched; the signature is judged with one key and the one
algorithm that key is bound to, a public key's by PyJWT; the claims are judged here, because each must be present, of
the right type and exactly equal, where libraries are lenient.
"""

from __future__ import annotations

import hmac
import json
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ncfast.auth.certificate import ClientCertificate, check_bearer, confirmed
from ncfast.auth.errors import AuthError, AuthSetupError
from ncfast.auth.identity import Identity, is_safe_name
from ncfast.auth.keys import MAX_KID_CHARS, SYMMETRIC, Key, check_algorithms

MAX_TOKEN_CHARS = 8 * 1024
MAX_LEEWAY_SEC = 30
MAX_LIFETIME_SEC = 24 * 3600
MAX_CONNECTORS = 64

# Parameters that move the choice of key, or the meaning of the signature, into the attacker's hands.
_REFUSED_PARAMETERS = frozenset({"crit", "jku", "jwk", "x5u", "x5c", "b64"})
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_TOKEN_ID = re.compile(r"[!-~]{1,128}")
_MAX_TIME = 2**53  # the integers a float can tell apart; anything beyond is no time


class Policy(Protocol):
    """What the verifier reads of the configuration's `auth.jwt`."""

    audience: str
    issuer: str | None
    leeway_sec: float
    max_lifetime_sec: int
    require_connectors: bool
    certificate_name: str | None

    @property
    def algorithms(self) -> Sequence[str]: ...


class KeySource(Protocol):
    """Where keys come from: `StaticKeys` or `JwksKeys`."""

    async def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """The keys, at most a few, that may have signed a token; raises `AuthError` if there is none."""


class Verifier:
    """Judges tokens by one policy; `AuthSetupError` at once if the policy, or PyJWT itself, is unsafe."""

    def __init__(self, policy: Policy, keys: KeySource, wall_clock: Callable[[], float] = time.time) -> None:
        self._algorithms = check_algorithms(policy.algorithms)
        self._signed_payload = _signed_by_secret
        if SYMMETRIC not in self._algorithms:  # which stands alone
            from ncfast.auth import publickeys  # heavy, and of use only here

            publickeys.check_pyjwt()
            self._signed_payload = publickeys.signed_payload
        if not policy.audience:
            raise AuthSetupError("auth.jwt.audience is empty: a token must name whom it is meant for")
        if not 0 <= policy.leeway_sec <= MAX_LEEWAY_SEC:
            raise AuthSetupError(f"auth.jwt.leeway_sec must be 0 to {MAX_LEEWAY_SEC} seconds")
        if not 0 < policy.max_lifetime_sec <= MAX_LIFETIME_SEC:
            raise AuthSetupError(f"auth.jwt.max_lifetime_sec must be 1 to {MAX_LIFETIME_SEC} seconds")
        self._audience = policy.audience
        self._issuer = policy.issuer
        self._leeway = policy.leeway_sec
        self._max_lifetime = policy.max_lifetime_sec
        self._required = ("exp", "iat", "aud", "sub", *(("connectors",) if policy.require_connectors else ()))
        self._certificate_name = policy.certificate_name
        self._keys = keys
        self._wall_clock = wall_clock

    async def verify(self, token: str, certificate: ClientCertificate | None = None) -> Identity:
        """The identity that `token` proves to who has shown `certificate`, or none; raises `AuthError`, and nothing
        else, if it proves none.

        Returns without suspending unless the key is unknown and the source goes to look for it.
        """
        if len(token) > MAX_TOKEN_CHARS:
            raise AuthError("too_large")
        algorithm, kid = self._read_header(token)
        for key in await self._keys.find(kid, algorithm):
            payload = self._signed_payload(token, key)
            if payload is not None:
                claims = _parse_object(payload)
                try:
                    identity = self._judge_claims(claims, key)
                    check_bearer(identity, certificate, self._certificate_name)
                except AuthError as exc:
                    raise exc.of(claims["sub"] if is_safe_name(claims.get("sub")) else None) from None
                return identity
        raise AuthError("signature")

    def _read_header(self, token: str) -> tuple[str, str | None]:
        """The algorithm and key id of a token whose shape and header are acceptable."""
        segments = token.split(".")
        if len(segments) != 3:
            raise AuthError("malformed")
        if not segments[2]:
            raise AuthError("signature")
        header, _, _ = map(_decode_segment, segments)
        parameters = _parse_object(header)
        if not _REFUSED_PARAMETERS.isdisjoint(parameters):
            raise AuthError("header")
        algorithm, kid = parameters.get("alg"), parameters.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise AuthError("algorithm")
        if "kid" in parameters and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARS):
            raise AuthError("header")
        return algorithm, kid

    def _judge_claims(self, claims: dict[str, Any], key: Key) -> Identity:
        for name in self._required:
            if name not in claims:
                raise AuthError("missing_claim")
        self._check_audience(claims["aud"])
        self._check_issuer(claims)
        expires_at, issued_at = _time(claims["exp"]), _time(claims["iat"])
        now = self._wall_clock()
        if now >= expires_at + self._leeway:
            raise AuthError("expired")
        if max(issued_at, _time(claims.get("nbf", issued_at))) > now + self._leeway:
            raise AuthError("not_yet_valid")
        if not 0 < expires_at - issued_at <= self._max_lifetime:
            raise AuthError("lifetime")
        if not is_safe_name(claims["sub"]):
            raise AuthError("subject")
        return Identity(
            agent_id=claims["sub"],
            tenant=_tenant(claims),
            connectors=_connectors(claims),
            expires_at=expires_at,
            issued_at=issued_at,
            token_id=_token_id(claims),
            certificate=confirmed(claims),
            signed_by=key,
        )

    def _check_audience(self, audience: object) -> None:
        if isinstance(audience, str):
            audience = [audience]
        if not isinstance(audience, list) or not all(isinstance(one, str) for one in audience):
            raise AuthError("claim_type")
        if self._audience not in audience:
            raise AuthError("audience")

    def _check_issuer(self, claims: dict[str, Any]) -> None:
        if self._issuer is None:
            return
        if "iss" not in claims:
            raise AuthError("missing_claim")
        if claims["iss"] != self._issuer:
            raise AuthError("issuer")


def _signed_by_secret(token: str, key: Key) -> bytes | None:
    """The payload of a token of acceptable shape if the secret `key` signed it (HS256: RFC 7515, RFC 7518 §3.2), else
    None."""
    assert isinstance(key.material, bytes)  # no public key is found under HS256
    signed, _, signature = token.rpartition(".")
    if not hmac.compare_digest(hmac.digest(key.material, signed.encode("ascii"), "sha256"), _decode_segment(signature)):
        return None
    return _decode_segment(signed.partition(".")[2])


def _decode_segment(segment: str) -> bytes:
    """Strict base64url: no padding, no foreign characters, no bits left over: each token has one spelling."""
    if _SEGMENT.fullmatch(segment) is None or len(segment) % 4 == 1:
        raise AuthError("malformed")
    encoded = segment.encode("ascii") + b"=" * (-len(segment) % 4)
    decoded = urlsafe_b64decode(encoded)
    if urlsafe_b64encode(decoded) != encoded:
        raise AuthError("malformed")
    return decoded


def _parse_object(document: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8 without repeated names, over which two parsers could disagree."""
    try:
        parsed = json.loads(document.decode("utf-8"), object_pairs_hook=_unique_names)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise AuthError("malformed")
    return parsed


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError
    return names


def _time(value: object) -> float:
    """A NumericDate (RFC 7519 §2): a number, finite and in range; true is none, though Python says so."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AuthError("claim_type")
    if not abs(value) <= _MAX_TIME:  # so put, it is also true of NaN
        raise AuthError("claim_type")
    return value


def _connectors(claims: dict[str, Any]) -> frozenset[str] | None:
    if "connectors" not in claims:
        return None
    names = claims["connectors"]
    if not isinstance(names, list) or len(names) > MAX_CONNECTORS or not all(map(is_safe_name, names)):
        raise AuthError("connectors")
    return frozenset(names)


def _tenant(claims: dict[str, Any]) -> str | None:
    if "tenant" in claims and not is_safe_name(claims["tenant"]):
        raise AuthError("tenant")
    return claims.get("tenant")


def _token_id(claims: dict[str, Any]) -> str | None:
    token_id = claims.get("jti")
    if token_id is not None and not (isinstance(token_id, str) and _TOKEN_ID.fullmatch(token_id)):
        raise AuthError("claim_type")
    return token_id
