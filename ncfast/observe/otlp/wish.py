"""What a configuration says of the export, with the files that it names read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ncfast.config.otlp import Otlp


class Wish(NamedTuple):
    """Two that are equal change nothing."""

    config: Otlp
    headers: tuple[tuple[str, str], ...]
    service: str  # who sends: ncfast-hub, ncfast-agent
    instance: str | None  # which of them
    mask: str  # how the log shows that
