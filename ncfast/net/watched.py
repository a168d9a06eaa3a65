"""Noticing that files were replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


class Watched:
    """Files to be read again when they change. They are replaced one after the other: what does not fit together yet
    is tried once, and again when it has changed again. Made before the files are read: what is replaced meanwhile is a
    change."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = tuple(files)
        self._seen = _stamp(self._files)

    def changed(self) -> bool:
        """Whether one is not as it was when this was asked last."""
        before, self._seen = self._seen, _stamp(self._files)
        return self._seen != before


def _stamp(files: Iterable[Path]) -> list[object]:
    """Changes when one of the files does; a file that is away has a stamp, too."""
    marks: list[object] = []
    for path in files:
        try:
            found = os.stat(path)  # through links, as mounted secrets are replaced
        except OSError as exc:
            marks.append(exc.errno)
        else:
            marks.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return marks
