"""What the whole room raises when the program under test is at fault."""

from __future__ import annotations

from ncfast.core.errors import NcfastError


class Broken(NcfastError):
    """It breaks `rule`, a label of docs/protocol.md; the text says how it shows."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.text = text
