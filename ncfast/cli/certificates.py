"""The certificates that a file names: until when they count, and for which names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ncfast.config.files import Unreadable, read_bounded

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

WARN_SEC = 14 * 86400  # enough for whoever has to ask somebody else for the next one
MAX_FILE_BYTES = 1 << 20  # a bundle of hundreds of authorities is smaller

OWN = ("cert_file", "redis_cert_file")  # the last part of keys: chains that are shown, their own certificate first
AUTHORITIES = ("ca_file", "ca_bundle", "client_ca_file", "jwks_ca_file", "redis_ca_file")  # by which others are judged


class Chain(NamedTuple):
    """What a file holds that a key names."""

    key: str
    path: Path
    own: bool
    certificates: list[Certificate]

    @property
    def begins(self) -> datetime:
        return max(one.not_valid_before_utc for one in self.certificates)

    @property
    def ends(self) -> datetime:
        """Of a chain the first end counts, of authorities the last: others may stand for them."""
        ends = [one.not_valid_after_utc for one in self.certificates]
        return min(ends) if self.own else max(ends)


def certificates(values: Iterable[tuple[str, Any]]) -> list[Chain]:
    """Those of the files among keys and values that are here and hold any; of the others somebody else tells."""
    return [chain for key, value in values if isinstance(value, Path) for chain in _chain(key, value)]


def _chain(key: str, path: Path) -> Iterator[Chain]:
    name = key.rpartition(".")[2]
    if name in OWN or name in AUTHORITIES:
        from cryptography import x509  # heavy, and of use only here

        try:
            found = x509.load_pem_x509_certificates(read_bounded(path, MAX_FILE_BYTES))
        except (Unreadable, ValueError):
            return
        yield Chain(key, path, name in OWN, found)


def ended(chains: Iterable[Chain], now: float) -> Iterator[str]:
    """Those with which nothing works any more, or yet. `now` in Unix seconds."""
    for chain in chains:
        if chain.ends.timestamp() <= now:
            yield f"{chain.key}: {chain.path}: has ended on {chain.ends:%Y-%m-%d %H:%M} UTC; put a new one in its place"
        elif chain.own and chain.begins.timestamp() > now:
            begins = f"{chain.begins:%Y-%m-%d %H:%M} UTC"
            yield f"{chain.key}: {chain.path}: counts from {begins} on; is this machine's clock right?"


def ends_soon(chains: Iterable[Chain], now: float) -> Iterator[str]:
    """Those of which somebody should see to a new one."""
    for chain in chains:
        if 0 < chain.ends.timestamp() - now < WARN_SEC:
            yield f"{chain.key}: {chain.path}: ends on {chain.ends:%Y-%m-%d %H:%M} UTC; put a new one in its place"


def holding(chains: Iterable[Chain]) -> Iterator[tuple[str, str]]:
    """Rows for the table of keys: whose own certificates are, and until when."""
    for chain in chains:
        if chain.own:
            names = ", ".join(_names(chain.certificates[0])) or "no name: nobody who checks names takes it"
            yield f"{chain.key} is for", f"{names}; until {chain.ends:%Y-%m-%d}"


def _names(certificate: Certificate) -> list[str]:
    """The subject alternative names; what a common name says counts nowhere."""
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(name.value) for name in found]
