"""What is wrong with a configuration, said for the person who has to mend it.

A problem names file, line, key, value and remedy. A value is shown as it was written (``${NAME}`` not
expanded), and a secret is not shown at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ncfast.core.errors import NcfastError

KeyPath = tuple[str | int, ...]

ENVIRONMENT = "environment"  # in place of a file's name: what no file says

_SECRET_KEY = re.compile(r"(?i)secret|passw|token|credential|private|(^|_)(api)?key$")
_SECRET_TEXT = re.compile(r"^\s*(eyJ|-----BEGIN)")
_FILE_KEY = re.compile(r"(?i)_(file|path|sec|bytes)$")
_REFERENCES = re.compile(r"(\$\{[A-Za-z_][A-Za-z0-9_]*\})+")
_USER_INFO = re.compile(r"://[^/?#]*@")
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Problem:
    """One thing to mend. ``line`` and ``column`` count from 1; 0 where the value stands in no file."""

    file: str
    line: int
    column: int
    key: str
    value: str
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        value = f" (got {self.value})" if self.value else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return ": ".join(part for part in (place, self.key, f"{self.message}{value}{remedy}") if part)


class ConfigError(NcfastError):
    """A configuration that cannot be used. ``problems`` holds all of them, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column, problem.key))
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: KeyPath) -> str:
    """``("listeners", 0, "bind")`` as ``listeners[0].bind``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def is_secret(path: KeyPath, text: str) -> bool:
    """Whether a value is secret by its key's name, or by its looks."""
    names = [part for part in path if isinstance(part, str)]
    secret = bool(names) and _SECRET_KEY.search(names[-1]) and not _FILE_KEY.search(names[-1])
    return bool(_SECRET_TEXT.search(text) or secret and not _REFERENCES.fullmatch(text))


def shown(path: KeyPath, text: str) -> str:
    """The value as a message may show it: quoted, cut short, control characters escaped, secrets masked."""
    if is_secret(path, text):
        return "'***'"
    text = _USER_INFO.sub("://***@", text)
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
