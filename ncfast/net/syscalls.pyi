"""System calls for which the socket module makes more than one."""

from typing import Any

def accept(listening: int) -> tuple[int, Any] | None:
    """The descriptor of the next connection, which does not block, and who it is from; None if there is none yet.
    Raises OSError."""
