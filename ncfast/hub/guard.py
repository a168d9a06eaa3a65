"""Who may do what at the admin edge, by where a request came in and what it shows.

At the Unix socket whoever may connect may do all. At the TCP port everybody who reaches it may read status, flows and
metrics; changes need the token if there is one, are not taken if there is a Unix socket for them, and are otherwise a
matter of the address: at loopback they are taken, beyond it not. What shows the process's inside (/diag/…) is as a
change. A web page changes nothing and reads nothing, as `ncfast.net.origin` has it.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from websockets.http11 import Request

from ncfast.config.files import Unreadable, Unusable, read_bounded
from ncfast.config.hub import Admin as AdminConfig
from ncfast.net.origin import from_page, is_for
from ncfast.net.request import Response
from ncfast.net.watched import Watched
from ncfast.observe import log

MIN_TOKEN_BYTES = 16  # 128 bits, if it is random
MAX_TOKEN_BYTES = 4096


def read_admin_token(path: Path) -> bytes:
    """The secret of `admin.token_file`, less surrounding blanks. Raises OSError, which names the remedy."""
    try:
        token = read_bounded(path, MAX_TOKEN_BYTES).strip()
    except Unreadable as exc:
        raise Unusable(f"admin.token_file: {path}: {exc}") from None
    if len(token) < MIN_TOKEN_BYTES:
        raise Unusable(
            f"admin.token_file: {path} holds {len(token)} bytes, at least {MIN_TOKEN_BYTES} are needed:"
            " make one with `openssl rand -hex 32`"
        )
    return token


class Guard:
    """Of the TCP port; the Unix socket needs none but `from_page`. Raises OSError for a token file of no use."""

    def __init__(self, config: AdminConfig) -> None:
        self._config = config
        self._file = config.token_file
        self._watched = Watched([self._file] if self._file is not None else [])
        self._token = read_admin_token(self._file) if self._file is not None else b""

    @property
    def changes(self) -> str:
        """By what changes are taken here: token, address or nothing."""
        if self._file is not None:
            return "token"
        return "address" if self._config.unix is None and self._config.bind.is_loopback else "nothing"

    def refusal(self, request: Request, *, change: bool) -> Response | None:
        """Why a request is not answered, or None."""
        if not is_for(request, (self._config.bind.host, *self._config.hosts)):
            return Response.text(421, "Misdirected Request: this host is none of admin.hosts")
        if not change:
            return None
        if (refusal := from_page(request)) is not None:
            return refusal
        by = self.changes
        if by == "token" and not self._shows_token(request):
            log.security("admin_refused", reason="token")
            return Response.text(401, "The admin token is needed: --token-file", ("WWW-Authenticate", "Bearer"))
        if by == "nothing":
            where = (
                "admin.unix"
                if self._config.unix is not None
                else "admin.unix or admin.token_file, of which none is set"
            )
            return Response.text(403, f"Forbidden: here one reads; changes and /diag need {where}")
        return None

    def _shows_token(self, request: Request) -> bool:
        if self._file is not None and self._watched.changed():
            try:
                self._token = read_admin_token(self._file)
            except OSError:  # the old one stays until there is another
                log.security("admin_token_unreadable")
        credentials = request.headers.get_all("Authorization")
        scheme, _, token = credentials[0].partition(" ") if len(credentials) == 1 else ("", "", "")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token)
