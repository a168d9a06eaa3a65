"""The token that hubs are shown, as its file has it now."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from ncfast.agent.dialer import DialError
from ncfast.agent.ground import Ground
from ncfast.config.files import Unreadable, read_bounded
from ncfast.core.errors import NcfastError

MAX_FILE_BYTES = 64 * 1024  # a hub takes a request of 8 KiB in all
_FOREIGN = re.compile(rb"[^A-Za-z0-9._~+/=-]")  # to a bearer token (RFC 6750, section 2.1)


class TokenFault(NcfastError):
    """The token file holds no token, or cannot be read. The text names the file and shows nothing of it."""


async def read_token(ground: Ground) -> str:
    """What the token file holds now. Raises DialError."""
    try:
        return await ground.net.loop.run_in_executor(None, token_of, ground.config.token_file)
    except TokenFault as exc:
        raise DialError("token_file", str(exc)) from None


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
