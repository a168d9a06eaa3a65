"""Columns of text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines with aligned columns; columns of numbers only are flush right. None shows as a dash."""
    texts = [list(header), *([text(cell) for cell in row] for row in rows)]
    columns = [[row[at] for row in rows if row[at] is not None] for at in range(len(header))]
    numeric = [bool(column) and all(map(_is_number, column)) for column in columns]
    widths = [max(len(row[at]) for row in texts) for at in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in texts
    ]


def _is_number(cell: object) -> bool:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def text(cell: object) -> str:
    """A cell as it is shown; control characters from a far end cannot reach the terminal."""
    if cell is None:
        return "-"
    said = f"{cell:.1f}" if isinstance(cell, float) else str(cell)
    return "".join(char if char.isprintable() else "?" for char in said)
