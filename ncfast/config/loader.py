"""From a file, or from the command line's flags, to a checked configuration.

Everything wrong is reported at once, in one :class:`ConfigError`: what YAML misreads, what the models refuse,
and what does not fit together.

Models take a while to load: those of a hub's file come with the first hub's file, those of an agent's with an agent's.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from ncfast.config import checks
from ncfast.config.problems import ConfigError, KeyPath, Problem, dotted
from ncfast.config.schema import AGENT_KEYS, words_at
from ncfast.config.yamlfile import Document, read

if TYPE_CHECKING:
    from ncfast.config.agent import AgentConfig
    from ncfast.config.hub import HubConfig

Model = TypeVar("Model", bound=BaseModel)


def load_hub(path: str | Path, env: Mapping[str, str] | None = None) -> HubConfig:
    """Reads a hub's file. ``env`` is what ``${NAME}`` draws from, the process environment by default.

    Raises :class:`ConfigError`.
    """
    from ncfast.config.hub import HubConfig

    document = _read(path, env)
    if _is_agent(document):
        raise ConfigError([document.problem((), "this is an agent's file", "run: ncfast agent --config FILE")])
    return build(HubConfig, document)


def load_agent(path: str | Path, env: Mapping[str, str] | None = None) -> AgentConfig:
    """Reads an agent's file; otherwise as :func:`load_hub`."""
    from ncfast.config.agent import AgentConfig

    document = _read(path, env)
    if isinstance(document.data, dict) and "listeners" in document.data and not _is_agent(document):
        raise ConfigError([document.problem((), "this is a hub's file", "run: ncfast hub --config FILE")])
    return build(AgentConfig, document)


def load_any(path: str | Path, env: Mapping[str, str] | None = None) -> HubConfig | AgentConfig:
    """Reads either kind: a file with ``hubs`` or ``agent_id`` is an agent's, any other a hub's."""
    from ncfast.config.agent import AgentConfig
    from ncfast.config.hub import HubConfig

    document = _read(path, env)
    return build(AgentConfig, document) if _is_agent(document) else build(HubConfig, document)


def agent_from_flags(
    hubs: Sequence[str],
    agent_id: str,
    connectors: Sequence[str],
    token_file: str | Path,
    *,
    allow_plaintext: bool = False,
    checks: Sequence[str] = (),
    admin: str | None = None,
    logging: Mapping[str, str] = {},
) -> AgentConfig:
    """An agent from ``--hub``, ``--agent-id``, ``--connector name=host:port``, ``--token-file``,
    ``--allow-plaintext``, ``--check name[=protocol]``, ``--admin host:port`` or ``unix:/path``, and keys of `logging`.

    Raises :class:`ConfigError`, as for a file.
    """
    from ncfast.config.agent import AgentConfig

    pairs = [connector.partition("=") for connector in connectors]
    checked = {name: protocol or "tcp" for name, _, protocol in (check.partition("=") for check in checks)}
    data: dict[str, Any] = {
        "hubs": list(hubs),
        "agent_id": agent_id,
        "token_file": str(token_file),
        "allow_plaintext": allow_plaintext,
        "connectors": [
            {"name": name, "target": target} | ({"health": {"protocol": checked.pop(name)}} if name in checked else {})
            for name, _, target in pairs
        ],
        "logging": dict(logging),
    }
    if admin is not None:
        data["admin"] = {"unix": admin.removeprefix("unix:")} if admin.startswith("unix:") else {"bind": admin}
    document = Document.of("command line", data)
    for name in checked:
        document.problems.append(
            document.problem(("connectors",), f"--check {name}: there is no such connector", "name one of --connector")
        )
    return build(AgentConfig, document)


def _read(path: str | Path, env: Mapping[str, str] | None) -> Document:
    document = read(os.fspath(path), os.environ if env is None else env)
    if document.data is None and document.problems:
        raise ConfigError(document.problems)
    if not isinstance(document.data, dict):
        problem = document.problem((), "a configuration is made of sections", "start from an example in config/")
        raise ConfigError([*document.problems, problem])
    return document


def _is_agent(document: Document) -> bool:
    return any(key in document.data for key in AGENT_KEYS)


def build(model: type[Model], document: Document) -> Model:
    """The model, or everything that keeps it from being one."""
    problems = list(document.problems)
    for path, doubt in document.doubts.items():
        if document.texts[path] not in words_at(model, path):
            problems.append(doubt)
    config, refusals = _validate(model, document, {problem.key for problem in problems})
    problems += refusals
    named = {problem.key for problem in problems}
    problems += [problem for problem in checks.across(document) if problem.key not in named]
    if config is None or problems:
        raise ConfigError(problems)
    return config


def _validate(model: type[Model], document: Document, known: set[str]) -> tuple[Model | None, list[Problem]]:
    """Validates until nothing new is refused: a refused key is left out and the rest tried again.

    pydantic checks how the keys of a section fit together only once each of them is right by itself; leaving
    the wrong ones out (their defaults step in) shows such problems in the same report. What concerns a key
    that was left out, misspelt, or in ``known``, is not reported again.
    """
    data = copy.deepcopy(document.data)
    problems: list[Problem] = []
    settled: set[KeyPath] = set()
    while True:
        try:
            return model.model_validate(data, by_alias=True, by_name=False), problems
        except ValidationError as refusal:
            from ncfast.config.refusals import meant, refused

            fresh = [error for error in refusal.errors(include_url=False) if error["loc"] not in settled]
        if not fresh:
            return None, problems
        unknown = [error["loc"] for error in fresh if error["type"] == "extra_forbidden"]
        meanings = {path for one in unknown if (path := meant(model, one)) is not None}
        misspelt = meanings - document.marks.keys()
        left_out = {dotted(path) for path in settled | misspelt} | known
        for error in fresh:
            section, keys = error["loc"], error.get("ctx", {}).get("keys", ())
            concerned = {dotted((*section, key)) for key in keys if key} or {dotted(section)}
            if left_out.isdisjoint(concerned):
                problems.append(refused(model, document, error))
            settled.add(section)
            settled.add(_leave_out(data, section))


def _leave_out(data: Any, path: KeyPath) -> KeyPath:
    """Deletes what stands at ``path``, or the list that it is an item of; returns the path of what went."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    for part in path[:-1]:
        if isinstance(data, dict) and part not in data:
            return path
        data = data[part]
    if path:
        data.pop(path[-1], None)
    return path
