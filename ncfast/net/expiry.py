"""When a certificate ends."""

from __future__ import annotations

from pathlib import Path


def ends_at(path: Path) -> float | None:
    """Unix seconds at which the first certificate of the file ends, which is the own one where it has a chain. None if
    there is none, as where it is being replaced just now."""
    from cryptography import x509  # heavy, and of use only to who shows a certificate

    try:
        own = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError):
        return None
    return own.not_valid_after_utc.timestamp()
