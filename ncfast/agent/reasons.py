"""What a hub says to people: another program's words, so nothing but printable ASCII of them is shown, and not much."""

from __future__ import annotations

import re

MOST = 160  # characters
_DESCRIPTION = re.compile(r'error_description="([^"]*)"')


def words(text: bytes) -> str:
    """What a hub has written beside a refusal."""
    return "".join(chr(byte) for byte in text[:MOST] if 0x20 <= byte < 0x7F)


def description(challenges: list[str]) -> str:
    """`error_description` of the WWW-Authenticate headers of a 401 (RFC 6750, section 3); "" if there is none."""
    for challenge in challenges:
        found = _DESCRIPTION.search(challenge)
        if found is not None:
            return words(found[1].encode("ascii", "ignore"))
    return ""
