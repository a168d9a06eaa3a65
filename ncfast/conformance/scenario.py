"""Scenarios: what a scripted hub or agent does, step by step, and which rule is broken when the other end does not
follow.

A file holds `{"scenarios": [{"name", "needs", "steps"}]}`. In a step the first member is the verb, the others are its
arguments (`ncfast.conformance.player` has the verbs, and `agents` and `hubs` those of one side), and `rule` is the
label in docs/protocol.md that is broken if the step fails. `needs` names what a program may do without.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from ncfast.core.errors import NcfastError


class ScenarioError(NcfastError):
    """A file of scenarios that cannot be read, or a step that is none."""


@dataclass(frozen=True)
class Scenario:
    name: str
    needs: frozenset[str]
    steps: tuple[dict[str, Any], ...]

    @property
    def rules(self) -> list[str]:
        """The labels that the steps name, in their order."""
        return list(dict.fromkeys(step["rule"] for step in self.steps if "rule" in step))


def read(name: str, optional: tuple[str, ...], path: Path | None = None) -> list[Scenario]:
    """The scenarios of a file, or those of this name that come with the package. Raises ScenarioError."""
    try:
        text = files("ncfast").joinpath(f"share/{name}").read_bytes() if path is None else path.read_bytes()
        return [_scenario(one, optional) for one in orjson.loads(text)["scenarios"]]
    except OSError as exc:
        raise ScenarioError(f"{path or name}: {exc.strerror}") from None
    except (ValueError, KeyError, TypeError) as exc:
        raise ScenarioError(f"{path or name}: no file of scenarios: {exc}") from None


def _scenario(said: dict[str, Any], optional: tuple[str, ...]) -> Scenario:
    needs = frozenset(said.get("needs", ()))
    if unknown := sorted(needs - set(optional)):
        raise ValueError(f"{said['name']}: needs {', '.join(unknown)}")
    return Scenario(said["name"], needs, tuple(said["steps"]))
