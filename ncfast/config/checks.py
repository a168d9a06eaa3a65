"""Checks that look across sections.

They read the plain data and skip what is not readable, so that they speak even while other keys are still
wrong: all problems are shown at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic_core import PydanticCustomError

from ncfast.config.problems import KeyPath, Problem, dotted
from ncfast.config.values import Address
from ncfast.config.yamlfile import Document

_PASSWORD = re.compile(r"://[^/?#@]*:(?P<password>[^/?#]*)@")


def across(document: Document) -> Iterator[Problem]:
    """Problems between keys that are each right by themselves."""
    yield from _repeated(document, "listeners", "name")
    yield from _repeated(document, "connectors", "name")
    yield from _repeated(document, "hubs")
    yield from _overlapping(document)
    yield from _written_passwords(document)


def _get(data: Any, path: KeyPath) -> Any:
    for part in path:
        known = part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int)
        if not known:
            return None
        data = data[part]
    return data


def _items(document: Document, section: str, *more: str) -> Iterator[tuple[KeyPath, Any]]:
    items = _get(document.data, (section,))
    for index in range(len(items) if isinstance(items, list) else 0):
        path: KeyPath = (section, index, *more)
        value = _get(document.data, path)
        if value is not None:
            yield path, value


def _repeated(document: Document, section: str, *more: str) -> Iterator[Problem]:
    first: dict[str, KeyPath] = {}
    for path, value in _items(document, section, *more):
        if not isinstance(value, str):
            continue
        if value in first:
            line = document.marks.get(first[value], (0, 0))[0]
            message = f"already used by {dotted(first[value])}" + (f" in line {line}" if line else "")
            yield document.problem(path, message, "give each its own")
        else:
            first[value] = path


def _overlapping(document: Document) -> Iterator[Problem]:
    """Sockets that the kernel would not bind together; in a hub's file the default binds take part."""
    if "listeners" not in document.data:
        return
    from ncfast.config.hub import Admin, Edge  # for an agent's file they stay unloaded

    binds: list[tuple[KeyPath, Any]] = [
        (("edge", "bind"), _get(document.data, ("edge", "bind")) or Edge().bind),
        (("admin", "bind"), _get(document.data, ("admin", "bind")) or Admin().bind),
        (("ha", "mesh", "listen"), _get(document.data, ("ha", "mesh", "listen"))),
        *_items(document, "listeners", "bind"),
    ]
    taken: list[tuple[KeyPath, Address]] = []
    for path, value in binds:
        try:
            address = Address.parse(value)
        except PydanticCustomError:
            continue
        for other_path, other in taken:
            if address.overlaps(other):
                yield document.problem(path, f"overlaps {dotted(other_path)} ({other})", "give it another port")
                break
        taken.append((path, address))


def _written_passwords(document: Document) -> Iterator[Problem]:
    for path, text in document.texts.items():
        match = _PASSWORD.search(text)
        if match and "${" not in match["password"]:
            yield document.problem(path, "a password is written in the file", "put it in the environment: ${NAME}")
