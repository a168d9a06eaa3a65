"""The token that hubs are shown, as its file has it now; the log is told what is wrong with it, and when it ends."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from ncfast.agent.claims import Claims, claims_of, span
from ncfast.agent.ground import Ground
from ncfast.config.files import Unreadable, Unusable, read_bounded
from ncfast.observe import log

_log = log.get("agent")

MAX_FILE_BYTES = 64 * 1024  # a hub takes a request of 8 KiB in all
_FOREIGN = re.compile(rb"[^A-Za-z0-9._~+/=-]")  # to a bearer token (RFC 6750, section 2.1)


class TokenFault(Unusable):
    """The token file holds no token, or cannot be read. The text names the file and shows nothing of it."""


class OwnToken:
    """The token file. What it holds is looked at whenever it is read; each fault is told once."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._claims: Claims | None = None  # of the token that was read last
        self._told = ""  # of its faults
        self._warned: Claims | None = None  # the token of whose end the log has been told

    async def read(self) -> str:
        """What the file holds now. Raises TokenFault."""
        token = await self._ground.net.loop.run_in_executor(None, token_of, self._ground.config.token_file)
        self._claims = claims_of(token)
        self._look()
        return token

    @property
    def fault(self) -> str:
        """Why hubs will refuse the token that was read last, as far as it says itself; "" for no reason seen."""
        if self._claims is None:
            return ""
        return self._claims.fault(self._ground.config.agent_id, self._ground.wall_clock())

    @property
    def expires_at(self) -> float | None:
        """Unix seconds at which the token that was read last ends; None if none was, or it does not say."""
        return self._claims.expires_at if self._claims is not None else None

    def _look(self) -> None:
        path, fault, claims = self._ground.config.token_file, self.fault, self._claims
        kind = fault.partition(" ")[0]  # how long ago it has expired is no news
        if kind != self._told:
            self._told = kind
            if fault:
                _log.warning("token_unfit", detail=f"the token in {path} {fault}")
        left = claims.ends_soon(self._ground.wall_clock()) if claims is not None else None
        if left is not None and claims != self._warned:
            self._warned = claims
            detail = f"the token in {path} ends in {span(left)}, and no other is there yet"
            _log.warning("token_ends_soon", expires_in_sec=round(left), detail=detail)


def token_of(path: Path) -> str:
    """The token in the file at `path`, less one byte order mark of UTF-8 and surrounding blanks, as editors add them.

    Raises TokenFault for anything else, too: the token goes into a header, where whatever ends the line or the value
    would make another request of it.
    """

    def fault(what: str) -> TokenFault:
        return TokenFault(f"token_file {path}: {what}")

    try:
        content = read_bounded(path, MAX_FILE_BYTES)
    except Unreadable as exc:
        raise fault(str(exc)) from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise fault("is UTF-16; write it as ASCII")
    token = content.removeprefix(codecs.BOM_UTF8).strip()
    if not token:
        raise fault("is empty")
    foreign = _FOREIGN.search(token)
    if foreign is not None:
        raise fault(f"holds {_named(foreign[0])}, as character {foreign.start() + 1}; one token alone is wanted")
    return token.decode("ascii")


def _named(byte: bytes) -> str:
    if byte in b"\r\n":
        return "more than one line"
    if byte in b" \t":
        return "a blank"
    if byte < b" " or byte == b"\x7f":
        return "a control character"
    return "what is not ASCII" if byte > b"\x7f" else "a character that no token has"
