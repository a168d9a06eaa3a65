"""Tokens for tests: genuine ones, and every wrong one that a library would refuse to make."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

from ncfast.auth import AuthError, ClientCertificate, Identity, StaticKeys, Verifier

NOW = 1_800_000_000
SECRET = b"a secret of exactly thirty-two b"
ABSENT = ...  # as a claim's value: leave the claim out

_ALGORITHMS = get_default_algorithms()


def private_key(algorithm: str, owner: str = "issuer") -> Any:
    """The one private key (or secret) of `owner` for `algorithm`."""
    return _private_key(algorithm, owner)


@functools.cache
def _private_key(algorithm: str, owner: str) -> Any:
    if algorithm.startswith("HS"):
        return SECRET if owner == "issuer" else owner.encode() * 32
    if algorithm.startswith(("RS", "PS")):
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "ES384":
        return ec.generate_private_key(ec.SECP384R1())
    return ed25519.Ed25519PrivateKey.generate()


def pem(algorithm: str, owner: str = "issuer") -> bytes:
    """The PEM file of the public half, or the secret itself."""
    key = private_key(algorithm, owner)
    if isinstance(key, bytes):
        return key
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(algorithm: str, owner: str = "issuer", **members: Any) -> dict[str, Any]:
    """The public half as a JWK, with further members."""
    public = private_key(algorithm, owner).public_key()
    return {**_ALGORITHMS[algorithm].to_jwk(public, as_dict=True), **members}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def as_json(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Acceptable claims, valid for an hour around `NOW`, changed as asked."""
    whole = {"sub": "site-1", "aud": "nowconnect", "iat": NOW - 60, "exp": NOW + 3540, **changes}
    return {name: value for name, value in whole.items() if value is not ABSENT}


def signer(algorithm: str, key: Any = None) -> Callable[[bytes], bytes]:
    """A function that signs; by default with the issuer's key."""
    key = private_key(algorithm) if key is None else key
    return lambda message: _ALGORITHMS[algorithm].sign(message, key)


def token(header: Any, payload: Any, sign: Callable[[bytes], bytes]) -> str:
    """A token of any header and payload (objects, or raw bytes) under any signature."""
    message = f"{b64(as_json(header))}.{b64(as_json(payload))}"
    return f"{message}.{b64(sign(message.encode()))}"


def genuine(algorithm: str, kid: str | None = None, **changes: Any) -> str:
    """A token of the issuer's with acceptable claims, changed as asked."""
    header = {"alg": algorithm, "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    return token(header, claims(**changes), signer(algorithm))


def policy(**changes: Any) -> SimpleNamespace:
    """What a verifier reads of `auth.jwt`."""
    whole = {"audience": "nowconnect", "algorithms": ["HS256"], "issuer": None}
    whole |= {"require_connectors": False, "certificate_name": None}
    return SimpleNamespace(**(whole | {"leeway_sec": 30.0, "max_lifetime_sec": 86_400} | changes))


def shared_secret() -> StaticKeys:
    """The keys of a hub that shares `SECRET` with the issuer."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(SECRET)
        file.flush()
        return StaticKeys.from_file(file.name, ["HS256"])


def verifier(keys: Any, **changes: Any) -> Verifier:
    return Verifier(policy(**changes), keys, wall_clock=lambda: NOW)


def judge(judging: Verifier, text: str, certificate: ClientCertificate | None = None) -> Identity | str:
    """The identity that `text` proves, or the reason why none."""
    try:
        return asyncio.run(judging.verify(text, certificate))
    except AuthError as error:
        return error.reason
