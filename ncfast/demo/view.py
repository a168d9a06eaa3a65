"""What the demo shows: a line for each thing that happens and, on a terminal, a live block below them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from ncfast.demo.clients import Conversations, Transfer

MIB = 1024 * 1024
_BAR = 32
_REFRESH_SEC = 0.1
_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"


class View:
    """Writes to `out`; `block` gives the lines of the live part, which appears only on a terminal."""

    def __init__(self, out: TextIO, block: Callable[[], list[str]]) -> None:
        self._out = out
        self._block = block
        self._live = out.isatty()
        self._shown = 0  # lines of the block on the screen now
        self._drawn_at = 0.0
        self._started = time.monotonic()

    def event(self, text: str) -> None:
        """One thing that happened, with the time since the start."""
        self.line(f"{time.monotonic() - self._started:6.2f} s  {text}")

    def line(self, text: str = "") -> None:
        self._erase()
        print(text, file=self._out, flush=True)
        self._drawn_at = 0.0

    def refresh(self) -> None:
        """Draw the block again, at most ten times a second."""
        if not self._live or time.monotonic() - self._drawn_at < _REFRESH_SEC:
            return
        self._erase()
        lines = self._block()
        self._out.write("".join(f"{line}{_ERASE_LINE}\n" for line in lines))
        self._out.flush()
        self._shown, self._drawn_at = len(lines), time.monotonic()

    def close(self) -> None:
        """Take the block away; what happened stays."""
        self._erase()
        self._out.flush()

    def _erase(self) -> None:
        if self._shown:
            self._out.write(f"\x1b[{self._shown}F{_ERASE_BELOW}")
            self._shown = 0


def progress(transfer: Transfer) -> str:
    """One transfer as a bar."""
    share = transfer.moved / transfer.size
    bar = ("█" * round(share * _BAR)).ljust(_BAR, "░")
    return f"  {transfer.direction:<5} {bar} {share:4.0%}  {transfer.moved / MIB:6.1f} of {transfer.size / MIB:.0f} MiB"


def verdict(transfer: Transfer) -> str:
    """One transfer's two digests, side by side."""
    name = f"  {transfer.direction:<5} {transfer.size / MIB:.0f} MiB"
    if transfer.intact:
        return f"{name}  intact     sha256 {transfer.sent_digest[:16]}… at both ends"
    return f"{name}  DIFFERENT  sent {transfer.sent_digest or '-'}, received {transfer.received_digest or '-'}"


def talk(conversations: Conversations) -> str:
    """The small flows in one line."""
    wrong = len(conversations.faults)
    return f"  {conversations.count} small flows, {conversations.round_trips:,} lines echoed, " + (
        f"{wrong} FAILED" if wrong else "none lost or out of order"
    )
