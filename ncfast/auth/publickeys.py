"""Public keys, and the signatures that they verify: what of tokens takes PyJWT and `cryptography`.

Loading it costs 50 ms and 10 MiB: only a hub whose issuer signs with a key pair does.
"""

from __future__ import annotations

import re

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ncfast.auth.errors import AuthSetupError
from ncfast.auth.keys import ASYMMETRIC, Key

MIN_PYJWT = (2, 15, 1)  # older ones let unknown `crit` headers and JWK confusion through
MIN_RSA_BITS = 2048  # RFC 7518 §3.3
MAX_RSA_BITS = 8192  # a check of a larger one costs milliseconds of the event loop

_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)
_jws = jwt.PyJWS(algorithms=ASYMMETRIC)


def check_pyjwt(version: str = jwt.__version__) -> None:
    """Raise `AuthSetupError` if this version of PyJWT is one with known forgeries."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < MIN_PYJWT:
        raise AuthSetupError(f"PyJWT {version} is unsafe: install {'.'.join(map(str, MIN_PYJWT))} or newer")


def signed_payload(token: str, key: Key) -> bytes | None:
    """The token's payload if `key` signed it, else None."""
    try:
        return _jws.decode(token, key.material, algorithms=[key.algorithm])
    except jwt.PyJWTError:
        return None


def public_key(material: object, kid: str | None = None) -> Key:
    """The key made of a `cryptography` public key, bound to the one algorithm of its type."""
    if isinstance(material, RSAPublicKey):
        if not MIN_RSA_BITS <= material.key_size <= MAX_RSA_BITS:
            raise AuthSetupError(
                f"an RSA key of {material.key_size} bits: {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted"
            )
        return Key("RS256", material, kid)
    if isinstance(material, EllipticCurvePublicKey):
        if not isinstance(material.curve, SECP256R1):
            raise AuthSetupError(f"an EC key on curve {material.curve.name}: ES256 needs P-256 (prime256v1)")
        return Key("ES256", material, kid)
    if isinstance(material, Ed25519PublicKey):
        return Key("EdDSA", material, kid)
    raise AuthSetupError("a key that is neither RSA, EC on P-256 nor Ed25519")


def pem_keys(document: bytes) -> list[Key]:
    """The keys of a PEM file: one or more public keys, and nothing broken or private among them."""
    keys = []
    for number, block in enumerate(_PEM_BLOCK.finditer(document), 1):
        label = block[1].decode("ascii")
        if "PRIVATE KEY" in label:
            raise AuthSetupError(
                f"PEM block {number} is a private key, which a hub must not hold: "
                "keep it at the issuer and give the hub the output of `openssl pkey -in KEY -pubout`"
            )
        if not label.endswith("PUBLIC KEY"):
            remedy = ": use `openssl x509 -in CERT -pubkey -noout`" if label == "CERTIFICATE" else ""
            raise AuthSetupError(f"PEM block {number} is a {label}, a PUBLIC KEY is needed{remedy}")
        try:
            material = load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm):
            raise AuthSetupError(f"PEM block {number} does not hold a readable public key") from None
        keys.append(public_key(material))
    if b"-----" in _PEM_BLOCK.sub(b"", document):
        raise AuthSetupError("the PEM file has a broken block: each needs its BEGIN and END line")
    if not keys:
        raise AuthSetupError("the file holds no PEM block")
    return keys
