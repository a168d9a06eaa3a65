"""Verification keys: each bound to one algorithm, gathered in a `KeySet`.

The binding is what defeats algorithm confusion: a key is asked for by (kid, algorithm) and never used under
another algorithm than the one its own type dictates, whatever a token's header says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ncfast.auth.errors import AuthSetupError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

SYMMETRIC = "HS256"
ASYMMETRIC = ("RS256", "ES256", "EdDSA")
ALGORITHMS = (SYMMETRIC, *ASYMMETRIC)

MIN_SECRET_BYTES = 32  # RFC 7518 §3.2: as long as the hash
MAX_KID_CHARS = 256
MAX_CANDIDATES = 8  # signature checks that one unauthenticated token may cost

# Hexadecimal or base64, as `openssl rand` prints it. No PEM, SSH or DER key and no JWK is made of these alone.
_DRAWN = re.compile(rb"[A-Za-z0-9+/=]+")


@dataclass(frozen=True, slots=True)
class Key:
    """One verification key. `kid` is None where the source names no key id (a secret, a PEM file)."""

    algorithm: str
    material: bytes | RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey = field(repr=False)
    kid: str | None = None


class KeySet:
    """An immutable set of keys, looked up by a token's key id and algorithm."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_kid: dict[tuple[str | None, str], list[Key]] = {}
        self._by_algorithm: dict[str, list[Key]] = {}
        for key in keys:
            self._by_kid.setdefault((key.kid, key.algorithm), []).append(key)
            self._by_algorithm.setdefault(key.algorithm, []).append(key)
        for (kid, algorithm), same in self._by_kid.items():
            others = len(self._by_kid.get((None, algorithm), ())) if kid is not None else 0
            if len(same) + others > MAX_CANDIDATES:
                raise AuthSetupError(
                    f"more than {MAX_CANDIDATES} {algorithm} keys share a key id or have none: "
                    "remove retired ones, or name each with its own kid"
                )

    def __len__(self) -> int:
        return sum(map(len, self._by_algorithm.values()))

    def holds(self, key: Key) -> bool:
        """Whether the same key is among them, whatever key id it has now."""
        return any(one.material == key.material for one in self._by_algorithm.get(key.algorithm, ()))

    def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """The keys a token may be signed with, at most `MAX_CANDIDATES`.

        Keys without a kid answer for any token; a token without a kid also matches an algorithm's sole key.
        """
        nameless = self._by_kid.get((None, algorithm), [])
        if kid is not None:
            return self._by_kid.get((kid, algorithm), []) + nameless
        alone = self._by_algorithm.get(algorithm, [])
        return alone if len(alone) == 1 else nameless


def check_algorithms(algorithms: Sequence[str]) -> frozenset[str]:
    """The allow-list as a set, or `AuthSetupError`: known names only, no shared secret beside public keys."""
    allowed = frozenset(algorithms)
    choice = ", ".join(ALGORITHMS)
    if not allowed:
        raise AuthSetupError(f"auth.jwt.algorithms is empty: name at least one of {choice}")
    if unknown := sorted(allowed.difference(ALGORITHMS)):
        raise AuthSetupError(f"auth.jwt.algorithms: {unknown[0]!r} is not supported; choose from {choice}")
    if SYMMETRIC in allowed and len(allowed) > 1:
        raise AuthSetupError(f"auth.jwt.algorithms: {SYMMETRIC}, a shared secret, must stand alone")
    return allowed


def secret_key(secret: bytes) -> Key:
    """The HS256 key made of `secret`; refuses one that is short, or that is really a public key or a JWK."""
    if len(secret) < MIN_SECRET_BYTES:
        raise AuthSetupError(
            f"the HS256 secret has {len(secret)} bytes, at least {MIN_SECRET_BYTES} are needed: "
            "make one with `openssl rand -hex 32`"
        )
    if not _DRAWN.fullmatch(secret):
        _check_secret(secret)
    return Key(SYMMETRIC, secret)


def _check_secret(secret: bytes) -> None:
    from jwt import InvalidKeyError  # heavy, and of no use for what `openssl rand` prints
    from jwt.algorithms import HMACAlgorithm

    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except InvalidKeyError:
        raise AuthSetupError(
            "the HS256 secret is a public key, certificate or JWK, which is no secret: "
            "set auth.jwt.algorithms to the key's own algorithm"
        ) from None
