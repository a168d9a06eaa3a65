"""A set from which a few can be drawn without looking at the others."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

One = TypeVar("One", bound=Hashable)


class Crowd(Generic[One]):
    """In no order. A list, and where each stands in it."""

    def __init__(self) -> None:
        self._all: list[One] = []
        self._place: dict[One, int] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[One]:
        return iter(self._all)

    def add(self, one: One) -> None:
        if one not in self._place:
            self._place[one] = len(self._all)
            self._all.append(one)

    def remove(self, one: One) -> None:
        """The last takes its place. Raises KeyError if it is not there."""
        place, last = self._place.pop(one), self._all.pop()
        if last is not one:
            self._all[place] = last
            self._place[last] = place

    def draw(self, most: int, rng: random.Random) -> list[One]:
        """All of them, or `most` by lot."""
        return list(self._all) if len(self._all) <= most else rng.sample(self._all, most)
