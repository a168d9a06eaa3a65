"""The chart as Helm renders it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.process import child_env
from support.until import PATIENCE

ROOT = Path(__file__).parents[2]
CHART = ROOT / "config" / "helm" / "ncfast"
RELEASE = "ncfast"
NAMESPACE = "default"


class Refused(Exception):
    """Helm renders nothing with these values."""


@dataclass(frozen=True)
class Rendered:
    """Kubernetes objects, and what `helm lint` said: severity 1 is information, 2 a warning, 3 an error."""

    objects: list[dict[str, Any]]
    messages: list[dict[str, Any]]

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """By name."""
        return {one["metadata"]["name"]: one for one in self.objects if one["kind"] == kind}

    def one(self, kind: str, name: str = RELEASE) -> dict[str, Any]:
        return self.all(kind)[name]


def render(values: Mapping[str, Any], release: str = RELEASE) -> Rendered:
    """As `helm template RELEASE`. Raises `Refused`."""
    done = subprocess.run(
        [sys.executable, "-m", "support.helm_program"],
        input=json.dumps({"chart": str(CHART), "values": dict(values), "release": release}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=child_env(),
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise Refused(answer["error"])
    manifests = [text for path, text in answer["manifests"].items() if path.endswith(".yaml")]
    objects = [one for text in manifests for one in yaml.safe_load_all(text) if one]
    return Rendered(objects, answer["messages"])
