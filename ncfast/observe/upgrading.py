"""How an upgrade stands, as whoever asked for it is told: by the process that began it, and by its successor.

`state` is `starting` (the successor is not ready), `passing`, `done`, `failed` (this process goes on; `reason` says
why) or `cut` (the predecessor died in the middle, and what it had not passed has ended with it).
"""

from __future__ import annotations

from typing import Any, Protocol

from ncfast.core.errors import NcfastError

UNDER_WAY = ("starting", "passing")


class UpgradeRefused(NcfastError):
    """None was begun; the text says why."""


class Upgrades(Protocol):
    """What an admin edge needs of whoever runs the process."""

    def begin(self) -> dict[str, Any]:
        """Begins one; how it stands. Raises UpgradeRefused."""

    def standing(self) -> dict[str, Any]:
        """`id`, `state`, `reason` of the last one; all empty if there was none."""
