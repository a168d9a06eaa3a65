"""TLS contexts, all of them: what every one has is said once; and what to say of files that cannot be loaded."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from ncfast.config.files import Unusable

if TYPE_CHECKING:
    from ncfast.config.hub import ServerTls
    from ncfast.config.sections import ClientTls


# OpenSSL's words for a record that is none of TLS: 1.1 and 3.0 the first, 3.2 and later the others
NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})


def _modern(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # what is older has been given up (RFC 8996)
    return context


def bare_context(protocol: int) -> ssl.SSLContext:
    """TLS 1.2 or newer, and no certificate yet, neither of ours nor of an authority."""
    return _modern(ssl.SSLContext(protocol))


def web_context(ca_file: str | Path | None = None) -> ssl.SSLContext:
    """TLS as a client by the web's rule: a certificate for the host's name from one of the system's authorities, or of
    `ca_file` in their place.

    Raises OSError (ssl.SSLError is one) for a file that is of no use.
    """
    return _modern(ssl.create_default_context(cafile=ca_file))


def is_plain(exc: ssl.SSLError) -> bool:
    """Whether a handshake failed because what the far end sent is no TLS at all."""
    return exc.reason in NO_TLS


def unreadable(section: str, exc: OSError, **files: Path | None) -> Unusable:
    """What to tell of certificates that cannot be loaded, by the keys of their files; never their content."""
    named = {f"{section}.{key}" if section else key: path for key, path in files.items() if path is not None}
    for key, path in named.items():
        try:
            with open(path, "rb"):
                pass
        except OSError as fault:
            return Unusable(f"{key}: {path}: {fault.strerror}")
    what = (exc.reason or "no PEM in it") if isinstance(exc, ssl.SSLError) else exc.strerror
    shown = ", ".join(f"{key}: {path}" for key, path in named.items())
    return Unusable(  # the paths last: a line of the log is cut, and what is wrong must stay
        f"{section}: certificate, key or CA cannot be loaded ({what or type(exc).__name__}); they have to be PEM, and"
        f" certificate and key to belong together{shown and f': {shown}'}"
    )


def server_context(tls: ServerTls, section: str = "edge.tls") -> ssl.SSLContext:
    """TLS of an edge, with client certificates demanded if a CA for them is configured.

    Raises OSError (ssl.SSLError is one) whose text names the section and the remedy.
    """
    context = _modern(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
        if tls.client_ca_file is not None:
            context.load_verify_locations(tls.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as exc:
        files = {"cert_file": tls.cert_file, "key_file": tls.key_file, "client_ca_file": tls.client_ca_file}
        raise unreadable(section, exc, **files) from None
    return context


def client_context(tls: ClientTls | None, section: str = "tls") -> ssl.SSLContext:
    """TLS towards hubs, or a collector: the system's authorities or `ca_file`, and our certificate if there is one.

    Raises OSError whose text names the section and the remedy.
    """
    try:
        context = web_context(tls.ca_file if tls is not None else None)
        if tls is not None and tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as exc:
        files = {} if tls is None else {"ca_file": tls.ca_file, "cert_file": tls.cert_file, "key_file": tls.key_file}
        raise unreadable(section, exc, **files) from None
    return context
