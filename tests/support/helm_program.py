"""Helm's own code on a chart, in a process of its own, as it brings Go's runtime and signal handlers along.

Reads {"chart": path, "values": {...}, "release": name} from standard input, and writes {"messages": [...], "manifests":
{template: text}} or {"error": text}.
"""

from __future__ import annotations

import json
import sys

from helm_python.chart import Chart, lint
from helm_python.errors import HelmError


def main() -> None:
    asked = json.load(sys.stdin)
    try:
        # Rendering alone does not look at values.schema.json; `helm install` and `helm template` do.
        with Chart.load(asked["chart"]) as chart:
            chart.validate_schema(chart.merge_values(asked["values"]))
            manifests = chart.render(asked["values"], name=asked["release"], namespace="default")
        found = lint(asked["chart"], asked["values"], strict=True)
        answer = {"messages": found["messages"], "manifests": manifests}
    except HelmError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
