"""A set from which a few can be drawn without looking at the others."""

import random
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

_One = TypeVar("_One", bound=Hashable)

class Crowd(Generic[_One]):
    """In no order. A list, and where each stands in it."""

    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[_One]: ...
    def add(self, one: _One) -> None: ...
    def remove(self, one: _One) -> None:
        """The last takes its place. Raises KeyError if it is not there."""

    def draw(self, most: int, rng: random.Random) -> list[_One]:
        """All of them, or `most` by lot."""
