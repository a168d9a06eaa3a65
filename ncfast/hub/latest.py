"""What an agent may say again and again, and of which only the latest counts: its connectors, its token.

Each costs the hub a parse or a signature, routes, and a write to the registry that every hub of the cluster reads. So
the first is acted upon at once, and of those that come within PAUSE after it the last, when that is over; the others
are never looked into.
"""

from __future__ import annotations

from collections.abc import Callable

PAUSE = 1.0  # seconds between two that are acted upon; an honest agent has minutes, or a health check's interval


class Latest:
    """Bodies of one kind of frame; `act` gets those that count."""

    __slots__ = ("_act", "_body", "_until")

    def __init__(self, act: Callable[[bytes], object]) -> None:
        self._act = act
        self._body: bytes | None = None
        self._until = float("-inf")

    def put(self, body: bytes, now: float) -> None:
        """One has come, at `now` (seconds)."""
        self._body = body
        self.tick(now)

    def tick(self, now: float) -> None:
        """Acts upon the one that waits, if its time has come."""
        if self._body is not None and now >= self._until:
            body, self._body = self._body, None
            self._until = now + PAUSE
            self._act(body)

    def forget(self) -> None:
        """The one that waits is out of date."""
        self._body = None
