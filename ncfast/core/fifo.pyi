"""What waits in order."""

from typing import Any

class Fifo:
    """`peek` and `pop` only while `size` is not 0."""

    size: int

    def push(self, item: Any) -> None: ...
    def peek(self) -> Any: ...
    def pop(self) -> Any: ...
    def remove(self, item: Any) -> bool:
        """Takes `item` out, wherever it waits; whether it did. Looks at all that wait."""

    def clear(self) -> None: ...
