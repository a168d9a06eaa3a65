"""What a fault is, and the list of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from .stage import Stage

Signs = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`make` makes it, and ends it when its context is left. `signs` are the alerts that it fires, each with what the
    first commands of its page show then, in the page's own words."""

    name: str
    says: str
    make: Callable[[Stage], AbstractContextManager[None]]
    signs: Signs


FAULTS: list[Fault] = []


def fault(**signs: tuple[str, ...]) -> Callable[[Callable[[Stage], Iterator[None]]], None]:
    """Lists a generator that makes a fault, yields while it lasts, and ends it; its docstring says what it does."""

    def enlist(make: Callable[[Stage], Iterator[None]]) -> None:
        says = " ".join((make.__doc__ or "").split()).rstrip(".")
        FAULTS.append(Fault(make.__name__, says, contextmanager(make), signs))

    return enlist
