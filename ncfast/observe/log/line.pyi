"""What a log line shows of an event."""

from typing import Any

from ncfast.observe.log.masking import Mask

def shown(level: str, event: str, name: str, fields: dict[str, Any], mask: Mask, agents: Mask) -> dict[str, Any]:
    """The line as a dictionary that JSON can hold."""

def written(
    level: str, event: str, name: str, fields: dict[str, Any], mask: Mask, agents: Mask, suppressed: int
) -> bytes | None:
    """The line in JSON, with its newline; None if something of it is out of the ordinary."""
