"""Reads a YAML file into plain data, and remembers where each value stands.

PyYAML reads YAML 1.1, editors and other tools mostly YAML 1.2; the two disagree about what ``on``, ``12:30``,
``0644`` or ``2024-01-01`` is. A plain (unquoted) scalar that they read differently is a *doubt*: it is taken
as text, and the caller refuses it, with the remedy to quote it, unless the key expects exactly that word. So
``mode: off`` is the word ``off`` where a key offers ``off|shadow|active``, and an error everywhere else.

``${NAME}`` in a value is replaced from the environment, ``${NAME:-default}`` by the default where the variable is unset
or empty, as in a shell. Aliases are allowed, merge keys (``<<``) and tags are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ncfast.config.files import Unreadable, read_bounded
from ncfast.config.problems import KeyPath, Problem, dotted, shown
from ncfast.core.errors import NcfastError

MAX_FILE_BYTES = 1 << 20  # a thousand listeners take about 100 KiB
MAX_VALUES = 100_000  # aliases of aliases must not multiply without end,
MAX_DEPTH = 20  # nor an alias contain itself

_REFERENCE = re.compile(r"\$\{([^}]*)\}?")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-([^${]*))?", re.DOTALL)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")

# YAML 1.2, core schema (10.3.2)
_CORE: list[tuple[re.Pattern[str], Callable[[str], Any]]] = [
    (re.compile(r"|~|null|Null|NULL"), lambda text: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: float(text.lower().replace(".", ""))),
]


@dataclass
class Document:
    """A file as plain data. ``marks``: line and column (from 1) of a path. ``texts``: a scalar as written."""

    file: str
    data: Any = None
    marks: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    texts: dict[KeyPath, str] = field(default_factory=dict)
    doubts: dict[KeyPath, Problem] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, source: str, data: dict[str, Any]) -> Document:
        """What comes from no file, such as the command line."""
        document = cls(source, data)

        def remember(value: Any, path: KeyPath) -> None:
            if isinstance(value, str):
                document.texts[path] = value
            elif isinstance(value, (dict, list)):
                for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                    remember(inner, (*path, key))

        remember(data, ())
        return document

    def problem(self, path: KeyPath, message: str, remedy: str = "") -> Problem:
        """A problem with what stands at ``path``; if nothing does, it points at the section around it."""
        text = self.texts.get(path)
        value = shown(path, text) if path and text else ""
        place = path
        while place and place not in self.marks:
            place = place[:-1]
        line, column = self.marks.get(place, (0, 0))
        return Problem(self.file, line, column, dotted(path), value, message, remedy)


def read(file: str, env: Mapping[str, str]) -> Document:
    """Reads ``file``. Never raises for what the file holds: what is wrong becomes ``problems``.

    ``data`` is what could be read nevertheless; None when the file as a whole could not.
    """
    document = Document(file)
    try:
        content = read_bounded(file, MAX_FILE_BYTES)
    except Unreadable as fault:
        return _unreadable(document, str(fault), "is this the right file, and may ncfast read it?")
    try:
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        document.data = None if node is None else _Reader(document, env).value(node, ())
    except yaml.MarkedYAMLError as error:
        return _not_yaml(document, error)
    except yaml.reader.ReaderError:
        return _unreadable(document, "not text in UTF-8, or with control characters", "save it as UTF-8")
    except (RecursionError, _EndlessError):
        return _unreadable(document, "nested too deeply, or aliases without end", "write the values out")
    if node is None:
        return _unreadable(document, "the file is empty", "start from an example in config/")
    return document


def _unreadable(document: Document, message: str, remedy: str) -> Document:
    document.problems.append(Problem(document.file, 0, 0, "", "", message, remedy))
    return document


def _not_yaml(document: Document, error: yaml.MarkedYAMLError) -> Document:
    """PyYAML's own words, without what they may quote of the file: it could be a secret."""
    mark = error.problem_mark or error.context_mark
    words = _QUOTED.sub(_mask_quoted, f"{error.problem} ({error.context or 'while reading the file'})")
    remedy = "quote a value that holds : # [ ] { } , & * ! % @ or `, as in '[::1]:389'; indent by spaces"
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    document.problems.append(Problem(document.file, line, column, "", "", f"not YAML: {words}", remedy))
    return document


def _mask_quoted(quoted: re.Match[str]) -> str:
    """Only a single character (a comma, an escaped tab) or a token's name (<scalar>) may stay."""
    text = quoted[0][1:-1]
    return quoted[0] if len(text) <= 1 or text.startswith(("\\", "<")) else "'...'"


class _EndlessError(NcfastError):
    """More values, or more levels, than a configuration can have."""


class _Reader:
    """Walks the node graph of one document."""

    def __init__(self, document: Document, env: Mapping[str, str]) -> None:
        self._document = document
        self._env = env
        self._constructor = yaml.constructor.SafeConstructor()
        self._values = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        mark = node.start_mark
        self._document.marks.setdefault(path, (mark.line + 1, mark.column + 1))
        self._values += 1
        if len(path) > MAX_DEPTH or self._values > MAX_VALUES:
            raise _EndlessError
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if not node.tag.startswith("tag:yaml.org,2002:"):
            self._wrong(path, *_TAGGED)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        return self._mapping(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                self._at(
                    place,
                    path,
                    "a key must be a word, and merge keys (<<) are not read",
                    "write the keys out",
                )
                continue
            key = key_node.value
            inner = (*path, key)
            if key in result:
                first = self._document.marks[inner][0]
                self._at(place, inner, f"duplicate key, first given in line {first}", "keep one of them")
                continue
            self._document.marks[inner] = place
            result[key] = self.value(value_node, inner)
        return result

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        document = self._document
        document.texts[path] = text = node.value
        plain = node.style is None
        if plain and node.tag.startswith("tag:yaml.org,2002:"):
            result = _core_value(text)
            if not _same(result, self._yaml11_value(node)):
                kind = node.tag.rpartition(":")[2]
                document.doubts[path] = document.problem(path, *_DOUBTS.get(kind, _TAGGED))
                return text
        elif node.tag == "tag:yaml.org,2002:str":
            result = text
        else:
            self._wrong(path, *_TAGGED)
            return None
        return self._expand(result, path) if isinstance(result, str) else result

    def _expand(self, text: str, path: KeyPath) -> str:
        def replace(match: re.Match[str]) -> str:
            reference = _NAME.fullmatch(match[1])
            if not match[0].endswith("}") or reference is None:
                remedy = "write ${NAME} or ${NAME:-default}: letters, digits and _; no $ and no braces in a default"
                self._wrong(path, "malformed ${NAME}", remedy)
                return match[0]
            name, default = reference.groups()
            if default is not None:
                return self._env.get(name) or default
            if name not in self._env:
                remedy = f"set {name}, or write the value, or ${{{name}:-default}}"
                self._wrong(path, f"the environment variable {name} is not set", remedy)
            return self._env.get(name, match[0])

        return _REFERENCE.sub(replace, text)

    def _yaml11_value(self, node: yaml.ScalarNode) -> Any:
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError):  # such as 2024-02-31, or the lone = of YAML 1.1
            return _UNREADABLE

    def _wrong(self, path: KeyPath, message: str, remedy: str) -> None:
        self._document.problems.append(self._document.problem(path, message, remedy))

    def _at(self, place: tuple[int, int], path: KeyPath, message: str, remedy: str) -> None:
        problem = Problem(self._document.file, *place, dotted(path), "", message, remedy)
        self._document.problems.append(problem)


_UNREADABLE = object()
_DECIMAL = "write a plain decimal number, or quote it if text is meant"
_DOUBTS = {  # by what YAML 1.1 makes of it
    "bool": (
        "YAML 1.1 takes this for true or false",
        "write true or false, or quote it if the word is meant",
    ),
    "int": ("YAML 1.1 takes this for an octal, binary, grouped or base-60 number", _DECIMAL),
    "float": ("YAML 1.1 takes this for a grouped or base-60 number", _DECIMAL),
    "str": ("YAML 1.2 takes this for a number, YAML 1.1 for text", _DECIMAL),
    "timestamp": ("YAML 1.1 takes this for a date", "quote it"),
}
_TAGGED = ("a tag (!...) or sign that means nothing here", "remove it, or quote the value")


def _core_value(text: str) -> Any:
    for pattern, convert in _CORE:
        if pattern.fullmatch(text) and len(text) < 100:  # int() refuses thousands of digits
            return convert(text)
    return text


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (one == other or one != one)
