"""What an operator loads into Prometheus, Alertmanager and Grafana is made from the tables, names metrics that exist,
leads to pages that exist, and has a test for each alert."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.process import require
from support.until import PATIENCE

from monitoring import cases
from monitoring.__main__ import files
from monitoring.alerts import ALERTS, INHIBITIONS, LOST
from monitoring.objectives import FAILED, MESH_RTT_SECONDS, OBJECTIVES, TURNED_AWAY, WINDOWS, recording_rules
from monitoring.panels import ROWS
from ncfast.core.errors import Reason
from ncfast.observe import labels
from ncfast.observe.metrics import METRICS, OVERFLOW
from ncfast.observe.stats import MESH_RTT_BUCKETS

ROOT = Path(__file__).parents[2]
RULES = [ROOT / "config" / "prometheus" / name for name in ("alerts.yaml", "objectives.yaml")]
TESTS = [ROOT / "config" / "prometheus" / name for name in ("alerts.test.yaml", "objectives.test.yaml")]
DASHBOARD = ROOT / "config" / "grafana" / "ncfast.json"
KNOWN = {metric.name: metric for metric in (*METRICS, OVERFLOW)}
RECORDED = {name: expr for rules in recording_rules().values() for name, expr in rules}
# Labels that Prometheus adds, that histograms have, that `nowconnect_cluster_info` brings in.
BROUGHT = {"job", "instance", "le", "cluster"}


def panels() -> list[dict]:
    return json.loads(DASHBOARD.read_text())["panels"]


EXPRESSIONS = sorted(
    {alert.expr for alert in ALERTS}
    | set(RECORDED.values())
    | {target["expr"] for panel in panels() for target in panel.get("targets", ())}
)


def test_the_files_are_made_from_the_tables():
    for path, text in files().items():
        assert path.read_text() == text, f"make dashboards ({path.name})"
    made = {path.name for path in files()}
    for folder in ("prometheus", "grafana"):
        assert {path.name for path in (ROOT / "config" / folder).iterdir()} <= made


def test_where_the_pages_are_to_be_read_is_said_once():
    (text,) = (text for path, text in files("https://wiki.example/ncfast/").items() if path.name == "alerts.yaml")
    assert text.count("runbook_url: https://wiki.example/ncfast/") == text.count("runbook_url:") > 20


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_name_metrics_and_labels_that_exist(expression):
    used = re.findall(r"(nowconnect_\w+)(?:\{([^}]*)\})?", expression)
    recorded = re.findall(r"(\w+:ncfast_[\w:]+)", expression)
    assert used or recorded or re.search(r"process_|ALERTS\{", expression)
    assert set(recorded) <= set(RECORDED)
    found = set()
    for name, matchers in used:
        metric = KNOWN.get(name) or KNOWN[re.sub(r"_(bucket|sum|count)$", "", name)]
        assert (metric.name == name) == (metric.kind != "histogram"), "a histogram has _bucket, _sum and _count"
        assert (metric.kind == "counter") <= ("rate(" in expression or "increase(" in expression)
        found |= set(metric.labels)
        assert set(re.findall(r"(\w+)[!=]", matchers)) <= set(metric.labels) | BROUGHT, (name, matchers)
    for name in recorded:
        found |= set(name.partition(":")[0].split("_"))
    for grouping in re.findall(r"by \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", grouping)) <= found | BROUGHT


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_counters_may_begin_anew(expression):
    """As they do at each start, and in the successor of each upgrade: what counts from zero again is no fall."""
    for use in re.finditer(r"nowconnect_\w+", expression):
        metric = KNOWN.get(use[0]) or KNOWN[re.sub(r"_(bucket|sum|count)$", "", use[0])]
        if metric.kind != "gauge":
            assert re.search(r"\b(rate|increase)\($", expression[: use.start()]), use[0]


def test_words_in_matchers_are_words_that_the_label_says():
    sources = "\n".join(path.read_text() for path in (ROOT / "ncfast").rglob("*.py"))
    for expression in EXPRESSIONS:
        for name, matchers in re.findall(r"(nowconnect_\w+)\{([^}]*)\}", expression):
            metric = KNOWN.get(name)
            for label, values in re.findall(r"(\w+)[!=]~?=?\"([^\"$]*)\"", matchers):
                known = dict(zip(metric.labels, metric.known, strict=False)).get(label) if metric is not None else None
                for value in values.split("|"):
                    if known is not None:
                        assert value in known, (name, label, value)
                    elif label != "le":
                        assert re.search(rf'"{value}"', sources), (name, label, value)


def test_what_fails_a_flow_is_a_reason_of_ours_and_no_client_s_or_target_s():
    flows = {reason.label for reason in Reason if 0 < reason < Reason.PROTOCOL_ERROR}
    assert set(FAILED) <= flows and set(LOST) <= set(FAILED)
    spared = flows - set(FAILED)
    assert spared == {
        *("closed", "client_reset", "client_lost", "target_reset", "target_refused", "target_unreachable"),
        *("target_timeout", "target_lost", "reader_paused", "no_such_connector", "scope_denied", "agent_locked"),
        "killed",
        *("idle_timeout", "half_close_timeout", "first_byte_timeout"),
    }
    assert set(TURNED_AWAY) <= set(labels.SHED)


def test_the_objective_for_round_trips_is_a_bound_of_the_histogram():
    assert MESH_RTT_SECONDS in MESH_RTT_BUCKETS


def test_each_alert_says_how_bad_and_what_and_where_to_read_on():
    for alert in ALERTS:
        assert alert.severity in ("critical", "warning", "info")
        for text in (alert.summary, alert.description):
            assert text.endswith(".") and "  " not in text
        assert re.fullmatch(r"(runbooks/)?[a-z-]+\.md", alert.page)
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)


def test_alerts_keep_the_labels_that_they_speak_of():
    for alert in ALERTS:
        grouped = re.search(r"^\(*sum by \(([^)]*)\)", alert.expr)
        for label in re.findall(r"\$labels\.(\w+)", alert.summary + alert.description):
            if grouped and "> sum by" not in alert.expr:
                assert label in {*re.split(r",\s*", grouped[1]), "cluster"}, (alert.name, label)


def test_no_alert_of_an_event_looks_back_so_far_that_it_fires_a_quarter_of_an_hour_later():
    for alert in ALERTS:
        if not alert.name.startswith("NcfastBudget"):
            for window in re.findall(r"increase\([^[]*\[(\d+)m\]", alert.expr):
                assert int(window) <= 10, alert.name


def test_each_alert_leads_to_a_page():
    for alert in ALERTS:
        assert (ROOT / "docs" / alert.page).is_file(), alert.name


def test_inhibitions_name_alerts():
    names = {alert.name for alert in ALERTS}
    for source, targets, equal in INHIBITIONS:
        assert source in names and set(targets) <= names - {source}
        assert "cluster" in equal


def test_the_page_of_objectives_says_what_the_table_says():
    page = (ROOT / "docs" / "slo.md").read_text()
    for one in OBJECTIVES:
        assert one.says in page
        assert f"`{one.ratio('30d')}`" in page
    for word in (*FAILED, *TURNED_AWAY):
        assert f"`{word}`" in page, word


def test_panels_have_their_place_and_text():
    taken = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["title"] and (panel["type"] == "row" or panel["description"].endswith("."))
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_dashboard_has_the_rows_that_were_agreed():
    titles = [row.title for row in ROWS]
    assert titles[:7] == ["Fleet", "Mesh health", "Safety", "Throughput", "Listeners", "Agents", "Objectives"]
    for row in ROWS:
        assert row.panels and len({panel.title for panel in row.panels}) == len(row.panels)


def test_every_panel_shows_what_was_chosen():
    variables = {one["name"] for one in json.loads(DASHBOARD.read_text())["templating"]["list"]}
    assert variables == {"datasource", "cluster", "hub", "listener"}
    for panel in panels():
        for target in panel.get("targets", ()):
            assert re.search(r'(instance=~"\$hub"|cluster=~"\$cluster")', target["expr"]), panel["title"]
            assert "{hub" not in target["expr"] and "{cluster" not in target["expr"].replace('{cluster=~"', "")


def test_every_alert_has_a_case_in_which_it_fires_and_clears():
    fires = {case.alert for case in cases.CASES if case.labels is not None and case.quiet is not None}
    assert fires == {alert.name for alert in ALERTS}


def promtool(*arguments: str | Path) -> None:
    (program,) = require("promtool")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_rules():
    promtool("check", "rules", *RULES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_their_cases_say(path):
    promtool("test", "rules", path)


def test_alertmanager_takes_the_inhibitions(tmp_path):
    (amtool,) = require("amtool")
    rules = yaml.safe_load((ROOT / "config" / "prometheus" / "inhibit.yaml").read_text())
    config = tmp_path / "alertmanager.yml"
    config.write_text(yaml.safe_dump(rules | {"route": {"receiver": "people"}, "receivers": [{"name": "people"}]}))
    done = subprocess.run([amtool, "check-config", config], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_windows_are_those_of_the_alerts_on_burn_rates():
    used = {window for alert in ALERTS for window in re.findall(r"availability:bad_ratio(\w+)", alert.expr)}
    assert used == set(WINDOWS)
