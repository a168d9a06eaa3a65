"""Reading a file that somebody else writes: never more of it than it may have, since a path may lead to /dev/zero."""

from __future__ import annotations

from pathlib import Path

from ncfast.core.errors import NcfastError


class Unreadable(NcfastError):
    """A file that cannot be read, or is too large. The text says which of both; whoever asked says which file."""


class Unusable(NcfastError, OSError):
    """A file that the configuration names and that is of no use: key, path and remedy are in the text. At the start it
    ends the process as a bad configuration does; later what was read before stays in force."""


def read_bounded(path: str | Path, most: int) -> bytes:
    """All of a file of at most `most` bytes. Raises Unreadable."""
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as exc:
        raise Unreadable(f"cannot be read: {exc.strerror}") from None
    if len(content) > most:
        raise Unreadable(f"larger than {most} bytes")
    return content
