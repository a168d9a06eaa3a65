"""What an operator loads into Prometheus and Grafana names metrics that exist, and alerts that the runbook explains."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.until import PATIENCE

from ncfast.observe.metrics import METRICS, OVERFLOW

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "config" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "config" / "grafana" / "ncfast.json"
KNOWN = {metric.name: metric for metric in (*METRICS, OVERFLOW)}
SCRAPED = {"job", "instance", "le"}  # labels that Prometheus adds, or histograms have


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict]:
    return json.loads(DASHBOARD.read_text())["panels"]


EXPRESSIONS = [rule["expr"] for rule in rules()] + [
    target["expr"] for panel in panels() for target in panel.get("targets", ())
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_name_metrics_and_labels_that_exist(expression):
    used = re.findall(r"(nowconnect_\w+)(?:\{([^}]*)\})?", expression)
    assert used or "up{" in expression or "process_" in expression
    labels = set()
    for name, matchers in used:
        metric = KNOWN.get(name) or KNOWN[re.sub(r"_(bucket|sum|count)$", "", name)]
        assert (metric.name == name) == (metric.kind != "histogram"), "a histogram has _bucket, _sum and _count"
        assert (metric.kind == "counter") <= ("rate(" in expression or "increase(" in expression)
        labels |= set(metric.labels)
        assert set(re.findall(r"(\w+)=", matchers)) <= set(metric.labels) | SCRAPED
    for grouping in re.findall(r"by \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", grouping)) <= labels | SCRAPED


def test_states_and_reasons_in_expressions_are_words_of_ours():
    sources = "\n".join(path.read_text() for path in (ROOT / "ncfast").rglob("*.py"))
    for expression in EXPRESSIONS:
        for _, values in re.findall(
            r"(state|status|reason|decision|agrees|linked|result)[!=]~?=?\"([^\"]*)\"", expression
        ):
            for value in values.split("|"):
                assert re.search(rf'"{value}"|\b{value.upper()} = ', sources), value


def test_each_alert_is_one_that_the_runbook_explains():
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.split("## Alerts\n")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(Ncfast\w+)` \|", section, re.MULTILINE)
    assert documented == [rule["alert"] for rule in rules()]


def test_each_alert_says_how_bad_and_what():
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"].endswith(".")
    assert len({rule["alert"] for rule in rules()}) == len(rules())


def test_panels_have_their_place_and_text():
    taken = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["title"] and (panel["type"] == "row" or panel["description"].endswith("."))
    assert len({panel["id"] for panel in panels()}) == len(panels())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules():
    done = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
