"""Says a refusal of the models in words that help: what is wrong with the key, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from ncfast.config.problems import KeyPath, Problem, dotted
from ncfast.config.schema import schema_at, schema_of, target
from ncfast.config.yamlfile import Document

_LIST = "write [one, two], or a line '- one' for each"
_GONE = {  # keys of earlier versions, and what has become of them
    ("transport",): "remove the line: aiofastnet's transports are the only ones, since 2026-11",
}
_MESSAGES = {  # pydantic's error type: message and remedy
    "string_type": ("must be text", "quote it"),
    "path_type": ("must be the path of a file", "quote it"),
    "list_type": ("must be a list", _LIST),
    "model_type": ("must be a section of keys", "write 'key: value' lines, indented below it"),
    "model_attributes_type": ("must be a section of keys", "write 'key: value' lines, indented below it"),
    "too_short": ("must not be empty", "name at least one"),
    "string_too_short": ("must not be empty", "give it a value, or remove the line"),
}


def refused(model: type[BaseModel], document: Document, error: ErrorDetails) -> Problem:
    """The problem that pydantic's ``error`` stands for."""
    path, kind = error["loc"], error["type"]
    schema = schema_at(model, path)
    if kind != "missing" and error["input"] is not None and schema.get("type") in ("integer", "number"):
        return document.problem(path, *_number(schema))
    if kind == "ncfast":
        context = error["ctx"]
        key = context["keys"][0] if context["keys"] else ""
        return document.problem((*path, key) if key else path, context["message"], context["remedy"])
    if kind == "extra_forbidden" and path in _GONE:
        return document.problem(path, "is no key any more", _GONE[path])
    if kind == "extra_forbidden":
        return document.problem(path, "unknown key", _nearest_key(model, path))
    if kind == "missing":
        return document.problem(path, "required key is missing", f"add it: {schema['description']}")
    if error["input"] is None:
        return document.problem(path, "has no value", "give it one, or remove the line")
    if kind == "literal_error":
        return document.problem(path, f"must be one of {', '.join(schema['enum'])}", _nearest(error, schema["enum"]))
    return document.problem(path, *_MESSAGES.get(kind, (error["msg"], "see docs/configuration.md")))


def _number(schema: dict[str, Any]) -> tuple[str, str]:
    """Whatever is wrong with a number, the answer is the same: kind, bounds and unit."""
    low, above, high = schema.get("minimum"), schema.get("exclusiveMinimum"), schema["maximum"]
    span = f"from {low:g} to {high:.15g}" if above is None else f"above {above:g}, to {high:.15g}"
    whole = "whole " if schema["type"] == "integer" else ""
    unit = schema["x-unit"]
    return f"must be a {whole}number {span}", f"write the number alone, in {unit}"


def meant(model: type[BaseModel], path: KeyPath) -> KeyPath | None:
    """The path of the known key that the unknown key at ``path`` probably stands for."""
    here = schema_at(model, path[:-1]).get("properties", {})
    longer = [name for name in here if name.startswith(f"{path[-1]}_")]  # key: key_file
    near = longer or difflib.get_close_matches(str(path[-1]), here, n=1, cutoff=0.5)
    return (*path[:-1], near[0]) if near else None


def _nearest_key(model: type[BaseModel], path: KeyPath) -> str:
    """The key that was probably meant: a like one in the same section, or the same one in another section."""
    name = path[-1]
    here = list(schema_at(model, path[:-1]).get("properties", {}))
    if near := meant(model, path):
        return f"did you mean '{near[-1]}'?"
    if elsewhere := [dotted(other) for other in _all_keys(model) if other[-1] == name]:
        return f"did you mean '{elsewhere[0]}'?"
    return f"known here: {', '.join(here)}"


def _nearest(error: ErrorDetails, words: list[str]) -> str:
    near = difflib.get_close_matches(str(error["input"]).lower(), words, n=1)
    return f"did you mean '{near[0]}'?" if near else "choose one of them"


def _all_keys(model: type[BaseModel]) -> Iterator[KeyPath]:
    root = schema_of(model)

    def walk(schema: dict[str, Any], path: KeyPath) -> Iterator[KeyPath]:
        for name, inner in schema.get("properties", {}).items():
            yield (*path, name)
            inner = target(root, inner)
            yield from walk(target(root, inner.get("items", inner)), (*path, name))

    yield from walk(root, ())
