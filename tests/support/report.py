"""Pieces of reports in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

WIDTH = 120  # columns
NO = "**no**"  # in place of what was to be seen


def table(head: Iterable[str], rows: Iterable[Iterable[object]], *, figures: bool = False) -> Iterator[str]:
    """Lines of a table, and an empty one behind it; with `figures` all columns but the first are aligned as such."""
    titles = list(head)
    yield "| " + " | ".join(titles) + " |"
    yield "| --- |" + (" ---: |" if figures else " --- |") * (len(titles) - 1)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"
    yield ""


def prose(text: str) -> Iterator[str]:
    """Paragraphs, each one line to be wrapped, and an empty one behind each."""
    for paragraph in text.strip().split("\n\n"):
        yield paragraph.replace("\n", " ")
        yield ""


def wrapped(line: str) -> list[str]:
    """Prose in lines as the documents have it; nothing else."""
    if line.startswith(("|", "#", " ")) or not line:
        return [line]
    return textwrap.wrap(line, WIDTH, subsequent_indent="  " if line.startswith("- ") else "", break_on_hyphens=False)
