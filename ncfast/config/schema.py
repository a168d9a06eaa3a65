"""The JSON Schema of both kinds of file, for editors; and questions that the loader asks of it.

``python -m ncfast.config schema`` prints it; ``config/ncfast.schema.json`` is that output, and a test
compares them.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic import BaseModel

from ncfast.config.problems import KeyPath

AGENT_KEYS = ("hubs", "agent_id")  # a file with one of these is an agent's


@cache
def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def schema_at(model: type[BaseModel], path: KeyPath) -> dict[str, Any]:
    """The schema of the value at ``path``, references followed; empty where the model knows no such path."""
    root = schema_of(model)
    schema = root
    for part in path:
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part, {})
        schema = target(root, schema)
    return schema


def target(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follows a reference, and "a section or nothing" to the section."""
    sections = [choice for choice in schema.get("anyOf", []) if "$ref" in choice]
    reference = (sections[0] if sections else schema).get("$ref")
    return root["$defs"][reference.rpartition("/")[2]] if reference else schema


def words_at(model: type[BaseModel], path: KeyPath) -> set[str]:
    """The words that the key at ``path`` offers: ``{"off", "shadow", "active"}``."""
    schema = schema_at(model, path)
    return {word for choice in [schema, *schema.get("anyOf", [])] for word in choice.get("enum", [])}


def file_schema() -> dict[str, Any]:
    """One schema for both files: an agent's has ``hubs`` or ``agent_id``, any other is a hub's."""
    from ncfast.config.agent import AgentConfig  # whoever loads one kind of file shall not load both
    from ncfast.config.hub import HubConfig

    hub, agent = schema_of(HubConfig), schema_of(AgentConfig)
    definitions = {**hub["$defs"], **agent["$defs"]}
    for name, schema in (("HubConfig", hub), ("AgentConfig", agent)):
        definitions[name] = {part: value for part, value in schema.items() if part != "$defs"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ncfast configuration",
        "description": "A hub's or an agent's file. A string may hold ${NAME}, taken from the environment.",
        "if": {"anyOf": [{"required": [key]} for key in AGENT_KEYS]},
        "then": {"$ref": "#/$defs/AgentConfig"},
        "else": {"$ref": "#/$defs/HubConfig"},
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    return json.dumps(file_schema(), indent=2) + "\n"
