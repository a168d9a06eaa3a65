"""The secrets of flows, drawn ahead: one system call for many."""

from __future__ import annotations

from collections.abc import Callable

from ncfast._frames import SECRET_SIZE

AHEAD = 256  # secrets drawn at once


class Secrets:
    """`entropy(n)` gives n random bytes; none of them is used twice."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._drawn = b""
        self._at = 0

    def draw(self) -> bytes:
        """The secret of a flow."""
        at = self._at
        if at == len(self._drawn):
            self._drawn, at = self._entropy(AHEAD * SECRET_SIZE), 0
        self._at = at + SECRET_SIZE
        return self._drawn[at : self._at]
