"""Scenarios: what the scripted hub does, step by step, and which rule is broken when the agent does not follow.

A file holds `{"scenarios": [{"name", "needs", "steps"}]}`. In a step the first member is the verb, the others are its
arguments (`ncfast.conformance.player` has all verbs), and `rule` is the label in docs/protocol.md that is broken
if the step fails. `needs` names what an agent may do without: `resume`, `standby`, `moves`,
`moves_again`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from ncfast.core.errors import NcfastError

OPTIONAL = ("resume", "standby", "moves", "moves_again")  # features that an agent may lack


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


def read(path: Path | None = None) -> list[Scenario]:
    """The scenarios of a file, or those that come with the package. Raises ScenarioError."""
    try:
        text = files("ncfast").joinpath("share/scenarios.json").read_bytes() if path is None else path.read_bytes()
        return [_scenario(one) for one in orjson.loads(text)["scenarios"]]
    except OSError as exc:
        raise ScenarioError(f"{path or 'scenarios.json'}: {exc.strerror}") from None
    except (ValueError, KeyError, TypeError) as exc:
        raise ScenarioError(f"{path or 'scenarios.json'}: no file of scenarios: {exc}") from None


def _scenario(said: dict[str, Any]) -> Scenario:
    needs = frozenset(said.get("needs", ()))
    if not needs <= set(OPTIONAL):
        raise ValueError(f"{said['name']}: needs {', '.join(sorted(needs - set(OPTIONAL)))}")
    return Scenario(said["name"], needs, tuple(said["steps"]))
