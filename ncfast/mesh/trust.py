"""Who may be a peer: names in certificates, headers of an ingress, addresses. Pure logic; nothing here does I/O.

A certificate is a replica's when one of its subject alternative names is, byte for byte,

    URI:ncfast://<cluster>/replica/<replica_id>    or    DNS:<replica_id>

No wildcards, no common name, no case folding: a name that needs interpretation is how one replica passes for another.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Protocol

from ncfast.core.errors import NcfastError

if TYPE_CHECKING:
    from cryptography import x509

XFCC = "X-Forwarded-Client-Cert"
VERIFY, CERT, SAN = "X-SSL-Client-Verify", "X-SSL-Client-Cert", "X-SSL-Client-SAN"
PROTO = "X-Forwarded-Proto"
VERIFIED = frozenset({"SUCCESS", "0"})  # nginx's word, HAProxy's number
MAX_NAMES = 64  # of a certificate; an honest one has a handful
_SHA256 = re.compile("[0-9a-fA-F]{64}")


class Refused(NcfastError):
    """A would-be peer is turned away. `reason` is a word for log and metric, `status` the HTTP answer where there is
    one."""

    def __init__(self, reason: str, detail: str, status: int = 403) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.status = status


@dataclass(frozen=True, slots=True)
class Credential:
    """What is known of the far end before it says who it is. `names` are those of its certificate.

    certificate  it has shown one of the mesh's authority
    forwarded    an ingress that we trust says the same of it
    ingress      it is behind one that the file names, and which its host's certificate has proved
    machine      it is a process of our user, or root's, on this machine: the kernel says so
    secret       nothing yet: it has to prove the secret
    """

    kind: str
    names: frozenset[str] | None = None

    @property
    def stands(self) -> bool:
        """Whether it proves something by itself. Without, the secret has to be proved, whoever dialled."""
        return self.names is not None or self.kind in ("ingress", "machine")

    def admits(self, cluster: str, replica_id: str) -> bool:
        """Whether the far end may be this replica."""
        return self.names is None or names_replica(self.names, cluster, replica_id)


def replica_uri(cluster: str, replica_id: str) -> str:
    """The name that a replica's certificate should carry."""
    return f"ncfast://{cluster}/replica/{replica_id}"


def names_replica(names: frozenset[str], cluster: str, replica_id: str) -> bool:
    """Whether names such as "DNS:hub-a" name this replica."""
    return f"URI:{replica_uri(cluster, replica_id)}" in names or f"DNS:{replica_id}" in names


def is_replicas(names: frozenset[str]) -> bool:
    """Whether some URI says that the certificate is a replica's, whichever."""
    return any(name.startswith("URI:ncfast://") for name in names)


def names_in(certificate: x509.Certificate) -> frozenset[str]:
    """Its DNS and URI alternative names. Raises Refused for what cannot be read."""
    from cryptography import x509  # heavy, as in the other places here: a hub that sees no certificate does without

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        dns = extension.value.get_values_for_type(x509.DNSName)
        uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        return frozenset()
    except ValueError:
        raise Refused("certificate", "the certificate's names cannot be read") from None
    if len(dns) + len(uris) > MAX_NAMES:
        raise Refused("certificate", "the certificate has too many names")
    return frozenset([f"DNS:{name}" for name in dns] + [f"URI:{name}" for name in uris])


def names_in_der(der: bytes | None) -> frozenset[str]:
    """The same for a certificate as TLS shows it. Raises Refused."""
    if not der:
        raise Refused("certificate", "no certificate was shown")
    from cryptography import x509

    try:
        return names_in(x509.load_der_x509_certificate(der))
    except ValueError:
        raise Refused("certificate", "the certificate cannot be read") from None


# addresses


def is_among(host: str | None, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether the address is in one of the networks; a Unix socket's is in none."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return False
    return any(address in network for network in networks)


# headers of an ingress


class Headers(Protocol):
    def get_all(self, key: str) -> Sequence[str]: ...


def claims_certificate(headers: Headers) -> bool:
    """Whether any header speaks of a client certificate, believed or not."""
    return any(headers.get_all(name) for name in (XFCC, VERIFY, CERT, SAN))


def forwarded(headers: Headers) -> frozenset[str]:
    """Names of the client certificate that an ingress says it has verified. Call only for requests from an ingress that
    is trusted to set, and so to overwrite, these headers. Raises Refused.

    Taken are: `X-Forwarded-Proto: https` once, and either `X-Forwarded-Client-Cert` once with one element (Envoy's
    format; its URI= and DNS=), or `X-SSL-Client-Verify: SUCCESS` with one of `X-SSL-Client-Cert` (PEM percent-encoded,
    as nginx has it, or DER in base64, as HAProxy has it) and `X-SSL-Client-SAN` ("URI:..., DNS:..."). Twice the same
    header, or two elements, mean that something of the client's was passed on: 400.
    """
    found = {name: headers.get_all(name) for name in (PROTO, XFCC, VERIFY, CERT, SAN)}
    if any(len(values) > 1 for values in found.values()):
        raise Refused("header_duplicate", "a header of the ingress came twice", 400)
    value = {name: values[0].strip() for name, values in found.items() if values}
    if value.get(PROTO, "").lower() != "https":
        raise Refused("forwarded_proto", f"{PROTO} is not https")
    if XFCC in value and (VERIFY in value or CERT in value or SAN in value):
        raise Refused("header_duplicate", f"both {XFCC} and X-SSL-Client-* came", 400)
    if XFCC in value:
        return frozenset(f"{key}:{text}" for key, text in _xfcc(value[XFCC]) if key in ("URI", "DNS"))
    if VERIFY not in value:
        raise Refused("no_client_certificate", "the ingress shows no client certificate")
    if value[VERIFY] not in VERIFIED:
        raise Refused("no_client_certificate", "the ingress has not verified a client certificate")
    if (CERT in value) == (SAN in value):
        raise Refused("no_client_certificate", f"exactly one of {CERT} and {SAN} is needed")
    return _certificate(value[CERT]) if CERT in value else _san(value[SAN])


def forwarded_thumbprint(headers: Headers) -> bytes | None:
    """The SHA-256 of the same certificate: XFCC's Hash=, or that of X-SSL-Client-Cert; None where neither came. Call
    `forwarded`, too, which judges whether the headers can be believed at all. Raises Refused."""
    for text in headers.get_all(XFCC):
        found = [value for key, value in _xfcc(text.strip()) if key == "HASH"]
        if len(found) != 1:
            return None
        if _SHA256.fullmatch(found[0]) is None:
            raise Refused("forwarded_certificate", f"{XFCC} is malformed", 400)
        return bytes.fromhex(found[0])
    for text in headers.get_all(CERT):
        if text.strip():
            from cryptography.hazmat.primitives import hashes

            return _loaded(text.strip()).fingerprint(hashes.SHA256())
    return None


def _xfcc(text: str) -> list[tuple[str, str]]:
    """The one element of Envoy's header, with its keys in upper case: key=value;key="value", with backslash escapes
    inside quotes."""
    pairs = []
    at, end = 0, len(text)
    while at < end:
        key, equals, _ = text[at:].partition("=")
        if not equals or not key.strip().isalpha():
            raise Refused("forwarded_certificate", f"{XFCC} is malformed", 400)
        at += len(key) + 1
        value, at = _quoted(text, at + 1) if text[at : at + 1] == '"' else _plain(text, at)
        pairs.append((key.strip().upper(), value))
        if at < end and text[at] == ",":
            raise Refused("header_duplicate", f"{XFCC} has more than one element", 400)
        if at < end and text[at] != ";":
            raise Refused("forwarded_certificate", f"{XFCC} is malformed", 400)
        at += 1
    return pairs


def _plain(text: str, at: int) -> tuple[str, int]:
    end = at
    while end < len(text) and text[end] not in ';,"':
        end += 1
    return text[at:end].strip(), end


def _quoted(text: str, at: int) -> tuple[str, int]:
    value = []
    while at < len(text) and text[at] != '"':
        if text[at] == "\\":
            at += 1
        value.append(text[at : at + 1])
        at += 1
    if at >= len(text):
        raise Refused("forwarded_certificate", f"{XFCC} is malformed", 400)
    return "".join(value), at + 1


def _certificate(text: str) -> frozenset[str]:
    return names_in(_loaded(text))


def _loaded(text: str) -> x509.Certificate:
    """The certificate in X-SSL-Client-Cert. Raises Refused."""
    from cryptography import x509

    try:
        if text.startswith("-----BEGIN"):
            pem = urllib.parse.unquote(text, errors="strict")
            if pem.count("-----BEGIN") != 1:
                raise ValueError
            return x509.load_pem_x509_certificate(pem.encode("ascii"))
        return x509.load_der_x509_certificate(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        raise Refused("forwarded_certificate", f"{CERT} cannot be read", 400) from None


def _san(text: str) -> frozenset[str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) > MAX_NAMES or not all(name.startswith(("DNS:", "URI:")) for name in names):
        raise Refused("forwarded_certificate", f"{SAN} is malformed", 400)
    return frozenset(names)
