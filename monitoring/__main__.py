"""`python -m monitoring`: writes what is made from the tables. DOCS=URL says where docs/ is to be read by those on
call, for `runbook_url`; by default the paths of this repository stand there."""

from __future__ import annotations

import os
from pathlib import Path

from monitoring import cases, grafana, panels, rules

CONFIG = Path(__file__).parents[1] / "config"
DOCS = "docs/"


def files(docs: str = DOCS) -> dict[Path, str]:
    """What stands in each."""
    return {
        CONFIG / "prometheus" / "alerts.yaml": rules.alerts(docs),
        CONFIG / "prometheus" / "objectives.yaml": rules.objectives(docs),
        CONFIG / "prometheus" / "inhibit.yaml": rules.inhibitions(),
        CONFIG / "prometheus" / "alerts.test.yaml": cases.of_alerts(),
        CONFIG / "prometheus" / "objectives.test.yaml": cases.of_objectives(),
        CONFIG / "grafana" / "ncfast.json": grafana.dashboard(panels.ROWS),
    }


def main() -> None:
    docs = os.environ.get("DOCS") or DOCS
    for path, text in files(docs if docs.endswith("/") else docs + "/").items():
        path.write_text(text)


if __name__ == "__main__":
    main()
