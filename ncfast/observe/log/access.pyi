"""The access log's line of a flow."""

from collections.abc import Callable
from typing import Any

class AccessLog:
    """`write(*values)`: one for each of the names. It neither blocks nor raises."""

    def __init__(
        self,
        state: Any,
        told: Callable[[str, str, dict[str, Any], int], bytes],
        json: Callable[[dict[str, Any]], bytes],
        name: str,
        *names: str,
    ) -> None:
        """`told` makes the line where `state` has another renderer than `json`, or somebody who wants it in its
        parts."""

    def write(self, *values: Any) -> None:
        """A flow is over."""
