"""TLS contexts: of the edge, of agents towards hubs, and what to say of files that cannot be loaded."""

from __future__ import annotations

import ssl

from ncfast.config import ClientTls, ServerTls


def unreadable(section: str, exc: OSError) -> OSError:
    """What to tell of certificates that cannot be loaded; never their content."""
    what = exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
    return OSError(
        f"{section}: cannot load certificate, key or CA ({what or type(exc).__name__}); "
        "check that the files exist, are PEM, belong together and are readable"
    )


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """TLS 1.2 or newer, with client certificates demanded if a CA for them is configured.

    Raises OSError (ssl.SSLError is one) whose text names the section and the remedy.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
        if tls.client_ca_file is not None:
            context.load_verify_locations(tls.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as exc:
        raise unreadable("edge.tls", exc) from None
    return context


def client_context(tls: ClientTls | None) -> ssl.SSLContext:
    """TLS towards hubs: the system's authorities or `ca_file`, and our certificate if there is one.

    Raises OSError whose text names the section and the remedy.
    """
    try:
        context = ssl.create_default_context(
            cafile=str(tls.ca_file) if tls is not None and tls.ca_file is not None else None
        )
        if tls is not None and tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as exc:
        raise unreadable("tls", exc) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
