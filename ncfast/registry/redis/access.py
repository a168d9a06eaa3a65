"""How we get in at Redis: password and certificates, read again when their files change."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from ncfast.config.files import Unreadable, Unusable, read_bounded
from ncfast.config.ha import Ha
from ncfast.net.tls import web_context
from ncfast.net.watched import Watched
from ncfast.observe import log

_log = log.get("registry")

MAX_PASSWORD_BYTES = 4096  # also stops at a mistaken /dev/zero


class Access:
    """For connections from now on; those that stand keep what they were made with. Raises OSError for a file that is of
    no use."""

    def __init__(self, config: Ha, *, tls: bool, password: str | None) -> None:
        """`password` is that of the URL, in force where there is no file."""
        self._config = config
        self._tls = tls
        self._of_url = password
        named = (config.redis_password_file, config.redis_ca_file, config.redis_cert_file, config.redis_key_file)
        self._files = Watched(path for path in named if path is not None)
        self._read()

    def renew(self) -> None:
        """Before a connection. Files that cannot be used are told once, and leave the former in force."""
        if not self._files.changed():
            return
        try:
            self._read()
        except OSError as exc:
            _log.warning("redis_files_refused", problems=[str(exc)], detail="the former ones stay in use")
        else:
            _log.info("redis_files_reloaded")

    def _read(self) -> None:
        file = self._config.redis_password_file
        password = read_password(file) if file is not None else self._of_url
        context = self._context() if self._tls else None
        self.password, self.context = password, context

    def _context(self) -> ssl.SSLContext:
        ca, cert, key = self._config.redis_ca_file, self._config.redis_cert_file, self._config.redis_key_file
        try:
            context = web_context(ca)
        except OSError as exc:  # ssl.SSLError, whose text names no file, is one
            reason = "no certificates in it" if isinstance(exc, ssl.SSLError) else os.strerror(exc.errno or 0)
            raise Unusable(f"cannot use ha.redis_ca_file {ca}: {reason}") from None
        if cert is not None:
            try:
                context.load_cert_chain(cert, key)
            except OSError as exc:
                reason = (exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror) or type(exc).__name__
                raise Unusable(f"cannot use ha.redis_cert_file {cert} with redis_key_file: {reason}") from None
        return context


def read_password(path: Path) -> str:
    """What the file holds, less one newline. Raises OSError, which shows nothing of it."""
    try:
        content = read_bounded(path, MAX_PASSWORD_BYTES)
    except Unreadable as exc:
        raise Unusable(f"ha.redis_password_file {path}: {exc}") from None
    try:
        password = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        password = ""
    if not password or "\n" in password:
        raise Unusable(
            f"ha.redis_password_file {path}: one line of UTF-8 is wanted, of {MAX_PASSWORD_BYTES} bytes at most"
        )
    return password
