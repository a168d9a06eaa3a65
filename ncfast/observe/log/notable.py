"""The last events that matter, for the admin edge's page: as the log has them, masked and thinned.

What matters is every warning and error, and of the rest what changes how the hub stands. A fixed number is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEPT = 50  # events
LONGEST = 300  # characters of an event's fields, so that fifty take some 30 KiB at most
WORTH_TELLING = frozenset(
    "hub_ready leaving draining config_reloaded mesh_ready mesh_link_up mesh_link_draining mesh_files_reloaded "
    "tls_files_reloaded redis_files_reloaded registry_back replica_restored level_begun level_ended move_asked "
    "agent_lock_ended".split()
)
_LOUD = frozenset({"warning", "error"})  # levels of which every event matters
_SHOWN_APART = frozenset({"ts", "level", "event", "logger", "trace", "security"})


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log; `at` is its time in UTC (RFC 3339)."""

    at: str
    level: str
    name: str
    text: str


def matters(level: str, event: str) -> bool:
    """Whether such a line is kept."""
    return level in _LOUD or event in WORTH_TELLING


class Notable:
    """May be written from any thread: a deque's append is atomic."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT)

    def note(self, line: Mapping[str, Any]) -> None:
        """Keeps a line that was admitted to the log, if it matters."""
        level, name = line["level"], line["event"]
        if matters(level, name):
            fields = " ".join(f"{key}={value}" for key, value in line.items() if key not in _SHOWN_APART)
            text = fields if len(fields) <= LONGEST else fields[: LONGEST - 1] + "…"
            self._kept.append(Event(line["ts"], level, name, text))

    def events(self) -> list[Event]:
        """Newest first."""
        return list(self._kept)[::-1]
