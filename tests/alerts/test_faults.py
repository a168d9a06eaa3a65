"""The faults are for every alert, their signs stand in its page, the rules are only made quicker; and one is played."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.process import require
from support.prometheus import RULES, SHIPPED, scaled
from support.until import PATIENCE

from monitoring.alerts import ALERTS

from . import mesh, objectives, process, registry, service  # noqa: F401  they list their faults
from .fault import FAULTS
from .page import ROOT, Page

REPORT = ROOT / "docs" / "reports" / "alerts.md"
NUMBER = re.compile(r"[\d.]+(?:ms|[smhd]\b)?")


def test_every_alert_has_a_fault() -> None:
    assert {alert.name for alert in ALERTS} == {name for one in FAULTS for name in one.signs}


def test_every_sign_stands_in_the_page_that_the_alert_leads_to() -> None:
    page = {alert.name: Page(f"docs/{alert.page}") for alert in ALERTS}
    for one in FAULTS:
        for alert, signs in one.signs.items():
            assert signs and page[alert].leads(alert) and page[alert].commands()
            assert not [sign for sign in signs if sign not in page[alert].text], alert


def test_every_alert_stands_in_the_report_as_one_that_fired_and_ended() -> None:
    text = REPORT.read_text()
    assert sorted(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == sorted(alert.name for alert in ALERTS)
    assert "**no**" not in text and "## Failures" not in text


@pytest.mark.parametrize("name", RULES)
def test_rules_are_only_made_quicker(name: str) -> None:
    """What is no duration stays as it is, and a duration is divided."""
    before, after = yaml.safe_load((SHIPPED / name).read_text()), scaled(SHIPPED / name, 30)
    for old, new in zip(before["groups"], after["groups"], strict=True):
        assert {"15s": "500ms", "1m": "2000ms", "5m": "10000ms"}[old["interval"]] == new["interval"]
        for shipped, quick in zip(old["rules"], new["rules"], strict=True):
            assert shipped.keys() == quick.keys()
            assert {key for key in shipped if shipped[key] != quick[key]} <= {"expr", "for"}
            for was, now in zip(NUMBER.findall(shipped["expr"]), NUMBER.findall(quick["expr"]), strict=True):
                assert was == now or (was, now) == ("60", "2") or _seconds(was) == 30 * _seconds(now), shipped


def _seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", duration).groups()
    return float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


def test_a_fault_is_played(tmp_path: Path) -> None:
    """`make alerts` is the long form, with all of them."""
    require("prometheus", "redis-server", "openssl", "curl")
    report = tmp_path / "alerts.md"
    argv = [sys.executable, "-m", "tests.alerts", "--only", "wrong_file", "--report", str(report)]
    done = subprocess.run(argv, cwd=ROOT, timeout=5 * PATIENCE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    assert "| `NcfastConfigRefused` | A file with a word for a number is reloaded | " in report.read_text()
