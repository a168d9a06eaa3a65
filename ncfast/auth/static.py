"""Keys from a file, read at start and again at SIGHUP."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ncfast.auth.errors import AuthError, AuthSetupError
from ncfast.auth.keys import SYMMETRIC, Key, KeySet, check_algorithms, secret_key
from ncfast.config.files import Unreadable, read_bounded

MAX_FILE_BYTES = 256 * 1024  # as for a JWK Set by URL


def read_secret(path: str | Path) -> bytes:
    """The HS256 secret in the file at `path`, less one trailing newline; `AuthSetupError` if it is unfit."""
    secret = _without_newline(_read(path))
    try:
        secret_key(secret)
    except AuthSetupError as fault:
        raise AuthSetupError(f"{path}: {fault}") from None
    return secret


class StaticKeys:
    """A key source whose keys change only when it is told to reload."""

    healthy = True

    def __init__(self, keys: KeySet, path: Path, algorithms: Collection[str]) -> None:
        self._keys = keys
        self._path = path
        self._algorithms = algorithms
        self.on_change: Callable[[], None] = lambda: None  # never called; as `JwksKeys` has it

    @classmethod
    def from_file(cls, path: str | Path, algorithms: Sequence[str]) -> StaticKeys:
        """Keys from the file at `path`; raises `AuthSetupError` naming the file and the remedy.

        Under HS256 the file is the secret itself, at least 32 bytes, one trailing newline not counted.
        Under RS256, ES256 and EdDSA it is one or more PEM public keys, or a JWK Set (it starts with a brace).
        """
        allowed = check_algorithms(algorithms)
        return cls(_load(Path(path), allowed), Path(path), allowed)

    def start(self) -> None:
        """Nothing to start; as `JwksKeys` has it."""

    async def aclose(self) -> None:
        """Nothing to close; as `JwksKeys` has it."""

    def reload(self) -> None:
        """Read the file again and swap the keys at once; on `AuthSetupError` the old keys stay."""
        self._keys = _load(self._path, self._algorithms)

    def holds(self, key: Key) -> bool:
        """Whether a token that this key had signed would still be believed."""
        return self._keys.holds(key)

    async def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """The keys that may have signed a token; raises `AuthError` if there is none."""
        found = self._keys.find(kid, algorithm)
        if not found:
            raise AuthError("unknown_key")
        return found


def _load(path: Path, algorithms: Collection[str]) -> KeySet:
    document = _read(path)
    try:
        if SYMMETRIC in algorithms:
            return KeySet([secret_key(_without_newline(document))])
        from ncfast.auth.jwks import parse_jwks  # heavy, and of use only here
        from ncfast.auth.publickeys import pem_keys

        if document.lstrip().startswith(b"{"):
            jwks = parse_jwks(document, algorithms)
            if jwks.faults:
                raise AuthSetupError(f"the JWK Set's {jwks.faults[0]}")
            return KeySet(jwks.keys)
        keys = pem_keys(document)
        for number, key in enumerate(keys, 1):
            if key.algorithm not in algorithms:
                raise AuthSetupError(
                    f"PEM block {number} is a key for {key.algorithm}, "
                    f"but auth.jwt.algorithms allows {', '.join(sorted(algorithms))}"
                )
        return KeySet(keys)
    except AuthSetupError as fault:
        raise AuthSetupError(f"{path}: {fault}") from None


def _read(path: str | Path) -> bytes:
    try:
        return read_bounded(path, MAX_FILE_BYTES)
    except Unreadable as fault:
        raise AuthSetupError(f"{path}: {fault}") from None


def _without_newline(secret: bytes) -> bytes:
    return secret.removesuffix(b"\n").removesuffix(b"\r")
