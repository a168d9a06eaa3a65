"""Reading a JWK Set (RFC 7517): which of its keys may verify our tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import jwt
import orjson
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from ncfast.auth.errors import AuthSetupError
from ncfast.auth.keys import MAX_KID_CHARS, Key
from ncfast.auth.publickeys import public_key

MAX_KEYS = 64  # a set of a real issuer has a handful

# (kty, crv) → the algorithm it serves, its public members, PyJWT's reader. No shared secrets (`oct`) here.
_TYPES: dict[tuple[str, str | None], tuple[str, tuple[str, ...], Callable[[dict[str, Any]], Any]]] = {
    ("RSA", None): ("RS256", ("n", "e"), RSAAlgorithm.from_jwk),
    ("EC", "P-256"): ("ES256", ("crv", "x", "y"), ECAlgorithm.from_jwk),
    ("OKP", "Ed25519"): ("EdDSA", ("crv", "x"), OKPAlgorithm.from_jwk),
}


@dataclass(frozen=True, slots=True)
class Jwks:
    """The usable keys of a set, and what is wrong with those that claim to be usable and are not.

    Keys for another purpose or algorithm are in neither: they are none of our business.
    """

    keys: list[Key]
    faults: list[str]


def parse_jwks(document: bytes, algorithms: Collection[str]) -> Jwks:
    """Read a JWK Set; raises `AuthSetupError` if it is none, or has no key usable under `algorithms`."""
    try:
        jwks = orjson.loads(document)
    except orjson.JSONDecodeError:
        raise AuthSetupError("the JWK Set is not valid JSON") from None
    entries = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(entries, list):
        raise AuthSetupError('the JWK Set has no list named "keys"')
    if len(entries) > MAX_KEYS:
        raise AuthSetupError(f"the JWK Set has {len(entries)} keys, at most {MAX_KEYS} are accepted")

    keys: list[Key] = []
    faults: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            key = _parse_jwk(entry, algorithms)
        except AuthSetupError as fault:
            faults.append(f"key {number}: {fault}")
        else:
            if key is not None:
                keys.append(key)
    if not keys:
        raise AuthSetupError(
            "the JWK Set has no usable key for " + ", ".join(sorted(algorithms)) + (f" ({faults[0]})" if faults else "")
        )
    return Jwks(keys, faults)


def _parse_jwk(entry: object, algorithms: Collection[str]) -> Key | None:
    """The key of one entry, or None if it is meant for something else than verifying tokens of ours."""
    if not isinstance(entry, dict):
        raise AuthSetupError("it is not an object")
    kty, crv = entry.get("kty"), entry.get("crv")
    if not isinstance(kty, str) or not isinstance(crv, str | None):
        raise AuthSetupError("kty or crv is not a string")
    if (kty, crv) not in _TYPES:
        return None
    algorithm, members, read = _TYPES[kty, crv]
    if algorithm not in algorithms:
        return None
    if entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if "d" in entry:
        raise AuthSetupError("it is a private key, and must be replaced at the issuer")
    kid = entry.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARS):
        raise AuthSetupError(f"kid is not a string of 1 to {MAX_KID_CHARS} characters")
    public = {"kty": kty} | {name: entry.get(name) for name in members}
    if not all(isinstance(value, str) for value in public.values()):
        raise AuthSetupError(f"{', '.join(members)} must be strings")
    try:
        material = read(public)
    except (jwt.InvalidKeyError, ValueError):
        raise AuthSetupError(f"{', '.join(members)} do not make a valid {kty} key") from None
    return public_key(material, kid)
