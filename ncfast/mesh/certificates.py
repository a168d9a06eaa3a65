"""Certificates and secret of the mesh: strict reading, and TLS for both roles."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ncfast.config.files import Unreadable, Unusable, read_bounded
from ncfast.config.ha import MeshTls
from ncfast.mesh.trust import Refused, names_in, names_replica, replica_uri
from ncfast.net.tls import bare_context, unreadable

SECTION, SECRET = "ha.mesh.tls", "ha.mesh.secret_file"
MIN_SECRET_BYTES = 32
MAX_FILE_BYTES = 1 << 20  # a bundle of hundreds of authorities is smaller
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_LOOKS_ENCODED = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")


class Certificates:
    """TLS contexts for links from now on; links that stand keep theirs. Raises OSError, with section and remedy, for
    files that cannot be used: what starts, runs."""

    def __init__(self, tls: MeshTls, cluster: str, replica_id: str) -> None:
        blocks = read_bundle(tls.ca_bundle)
        bundle = "".join(blocks)
        self._authorities = [x509.load_pem_x509_certificate(block.encode()) for block in blocks]
        self.ends_at = self._check_own(tls.cert_file, cluster, replica_id)
        try:
            self.server = self._context(ssl.PROTOCOL_TLS_SERVER, tls, bundle)
            self.client = self._context(ssl.PROTOCOL_TLS_CLIENT, tls, bundle)
            self.web = WebTls(tls, bundle)
        except OSError as exc:
            raise unreadable(SECTION, exc, cert_file=tls.cert_file, key_file=tls.key_file) from None

    def issued(self, der: bytes) -> bool:
        """Whether an authority of the bundle has issued this certificate, itself: one between them has to be in the
        bundle, too. When it ends, and whether it is for servers, TLS has seen to."""
        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError:
            return False
        for authority in self._authorities:
            try:
                certificate.verify_directly_issued_by(authority)
            except (ValueError, TypeError, InvalidSignature):
                continue
            return True
        return False

    @staticmethod
    def _context(protocol: int, tls: MeshTls, bundle: str) -> ssl.SSLContext:
        context = bare_context(protocol)
        # The mesh's authority signs replicas and nothing else, and a replica is known by its name in the cluster, not
        # by where it happens to listen (pods move, tests use loopback): the URI or DNS name of the replica that HELLO
        # claims is checked instead of the host name, at both ends (peer.py).
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=bundle)
        context.load_cert_chain(tls.cert_file, tls.key_file)
        context.options |= ssl.OP_NO_TICKET  # a resumed session would not show its certificate again
        context.options |= ssl.OP_NO_RENEGOTIATION
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0
        return context

    @staticmethod
    def _check_own(path: Path, cluster: str, replica_id: str) -> float:
        """A certificate that does not name us would be turned away by every peer. When it ends, in unix seconds."""
        try:
            own = x509.load_pem_x509_certificates(read_text(path, SECTION).encode())[0]
            names = names_in(own)
        except (ValueError, Refused):
            raise Unusable(f"{SECTION}.cert_file: {path}: no readable certificate in PEM") from None
        if not names_replica(names, cluster, replica_id):
            raise Unusable(
                f"{SECTION}.cert_file: {path}: the certificate does not name this replica; it needs "
                "the subject alternative "
                f"name URI:{replica_uri(cluster, replica_id)} or DNS:{replica_id}"
            )
        return own.not_valid_after_utc.timestamp()


class WebTls:
    """TLS towards wss:// peers. There an HTTP ingress ends it, so this is the web's rule: a certificate for the URL's
    host from one of the system's authorities or the mesh's, and our own certificate for the ingress to verify."""

    def __init__(self, tls: MeshTls | None = None, bundle: str = "") -> None:
        self._context = bare_context(ssl.PROTOCOL_TLS_CLIENT)
        self._complete = False
        if bundle:
            self._context.load_verify_locations(cadata=bundle)
        if tls is not None:
            self._context.load_cert_chain(tls.cert_file, tls.key_file)

    async def context(self, loop: asyncio.AbstractEventLoop) -> ssl.SSLContext:
        """The system's authorities are read at the first use, and in a thread: there are many, and it takes 70 to 100
        ms."""
        if not self._complete:
            await loop.run_in_executor(None, self._context.load_default_certs)
            self._complete = True
        return self._context


def read_bundle(path: Path) -> list[str]:
    """The certificates of a CA bundle as PEM blocks. OpenSSL skips what it cannot read, and then trusts less, or
    otherwise, than was written; here anything doubtful raises OSError that says where."""

    def fault(line: int, what: str) -> Unusable:
        return Unusable(f"{SECTION}.ca_bundle: {path}, line {line}: {what}")

    blocks: list[str] = []
    block: list[str] = []
    started = 0
    for number, raw in enumerate(read_text(path, SECTION).splitlines(), 1):
        line = raw.strip()
        if line == _BEGIN:
            if started:
                raise fault(number, "a certificate begins before the one above has ended")
            started, block = number, []
        elif line == _END:
            if not started:
                raise fault(number, "a certificate ends that has not begun")
            blocks.append(_checked("".join(block), lambda what, at=started: fault(at, what)))
            started = 0
        elif "-----" in line:
            raise fault(number, "not a certificate's BEGIN or END line; only certificates belong here")
        elif started:
            block.append(line)
        elif _LOOKS_ENCODED.fullmatch(line):
            raise fault(number, "encoded data outside of BEGIN and END")
    if started:
        raise fault(started, "the certificate that begins here does not end")
    if not blocks:
        raise Unusable(f"{SECTION}.ca_bundle: {path}: no certificate in it")
    return blocks


def _checked(encoded: str, fault: object) -> str:
    try:
        der = base64.b64decode(encoded, validate=True)
        if base64.b64encode(der).decode() != encoded:  # validate lets superfluous padding pass
            raise ValueError
        certificate = x509.load_der_x509_certificate(der)
        try:
            basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except x509.ExtensionNotFound:  # a root from the time before extensions
            basic = None
    except ValueError:
        raise fault("the certificate that begins here is malformed") from None  # type: ignore[operator]
    if basic is not None and not basic.value.ca:
        raise fault("the certificate that begins here is no authority's")  # type: ignore[operator]
    return ssl.DER_cert_to_PEM_cert(der)


def read_text(path: Path, section: str) -> str:
    """A file's content; OSError, naming the section, if it cannot be."""
    try:
        content = read_bounded(path, MAX_FILE_BYTES)
    except Unreadable as exc:
        raise Unusable(f"{section}: {path}: {exc}") from None
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Unusable(f"{section}: {path}: not text") from None


def read_secret(path: Path) -> bytes:
    """The shared secret of `ha.mesh.secret_file`, less surrounding blanks. Raises OSError for one that could be
    guessed: the listener's proof can be tried against guesses at leisure."""
    secret = read_text(path, SECRET).strip().encode()
    if len(secret) < MIN_SECRET_BYTES:
        raise Unusable(
            f"{SECRET}: {path}: {len(secret)} bytes, at least {MIN_SECRET_BYTES} are needed: "
            "make one with `openssl rand -hex 32`"
        )
    return secret
