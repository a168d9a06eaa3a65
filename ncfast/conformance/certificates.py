"""Certificates for the scripted ends' TLS, made as they are needed: an authority that the program under test is told
of, and what it is to be shown."""

from __future__ import annotations

import ssl
import tempfile
import warnings
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

LIFETIME = timedelta(days=2)  # a program under test may have a clock that is a day off
LONG_AGO = timedelta(days=30)


class Certificate(NamedTuple):
    """With its key, both in PEM."""

    chain: bytes
    key: bytes

    def write(self, chain: Path, key: Path) -> None:
        """For a program that reads files; the key for this user alone."""
        chain.write_bytes(self.chain)
        key.touch(mode=0o600)
        key.write_bytes(self.key)

    @property
    def thumbprint(self) -> bytes:
        """As `x5t#S256` of a token says it, before its encoding (RFC 8705, section 3.1)."""
        return x509.load_pem_x509_certificate(self.chain).fingerprint(hashes.SHA256())


class Authority:
    """Signs certificates; its own is `pem`."""

    def __init__(self, name: str) -> None:
        self._name = _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        signs = x509.BasicConstraints(ca=True, path_length=0)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        made = _begun(self._name, self._name, self._key, now - LIFETIME, now + LIFETIME)
        made = made.add_extension(signs, critical=True).add_extension(identifier, critical=False)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self._own = made.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.pem = self._own.public_bytes(Encoding.PEM)

    def certificate(self, *names: str, since: timedelta = -LIFETIME, until: timedelta = LIFETIME) -> Certificate:
        """For these names, of a server or a client; it counts from `since` to `until`, from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        made = _begun(_named(names[0]), self._name, key, now + since, now + until)
        alternative = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = made.add_extension(alternative, critical=False).add_extension(signer, critical=False)
        return Certificate(
            made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    return made.serial_number(x509.random_serial_number()).not_valid_before(since).not_valid_after(until)


@cache
def authority() -> Authority:
    """Whom the program under test is to trust: one for all scenarios of this process."""
    return Authority("conformance")


@cache
def hub_certificate(kind: str, *names: str) -> Certificate:
    """What a hub of these names shows: `right`; or `another name`, `expired`, `not yet`, `stranger`, of an authority
    that nobody knows. Raises KeyError for another kind."""
    makers = {
        "right": lambda: authority().certificate(*names),
        "another name": lambda: authority().certificate("elsewhere.test"),
        "expired": lambda: authority().certificate(*names, since=-LONG_AGO, until=-LIFETIME),
        "not yet": lambda: authority().certificate(*names, since=LIFETIME, until=LONG_AGO),
        "stranger": lambda: Authority("stranger").certificate(*names),
    }
    return makers[kind]()


@cache
def client_certificate(name: str) -> Certificate:
    """That of an agent."""
    return authority().certificate(f"{name}.test")


def only_old(context: ssl.SSLContext) -> None:
    """TLS 1.1, and nothing else, which the library advises against."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")


def load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Has it show the certificate. The library reads files alone."""
    with tempfile.TemporaryDirectory(prefix="ncfast-conformance-") as directory:
        chain, key = Path(directory, "chain.pem"), Path(directory, "key.pem")
        certificate.write(chain, key)
        context.load_cert_chain(chain, key)
