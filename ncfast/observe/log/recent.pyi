"""The last lines of the log, kept in memory."""

MAX_LINES: int
MAX_BYTES: int

class Recent:
    """The newest lines, within both bounds. May be called from any thread."""

    def __init__(self, lines: int = ..., size: int = ...) -> None: ...
    def put(self, line: bytes) -> None: ...
    def lines(self) -> list[bytes]:
        """Oldest first, each with its newline."""
