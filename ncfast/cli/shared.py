"""Files that come with the package: examples, and completions for shells."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable


def shared(name: str) -> Traversable:
    """A file or directory of `ncfast/share/`, wherever the package lies."""
    return files("ncfast") / "share" / name
