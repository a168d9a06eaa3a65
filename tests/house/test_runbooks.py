"""Each runbook is reached by its alerts, says what is asked at night, and names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ncfast.core.errors import Reason

ROOT = Path(__file__).parents[2]
SOURCES = [path for path in (ROOT / "ncfast").rglob("*.py*") if path.suffix in (".py", ".pyx")]
RUNBOOKS = sorted(path for path in (ROOT / "docs" / "runbooks").glob("*.md") if path.stem != "README")
RULES = [path for path in sorted((ROOT / "config" / "prometheus").glob("*.yaml")) if ".test" not in path.name]
PARTS = ["What users feel", "Confirm", "Do", "Over when", "Undo"]


def ids(path: Path) -> str:
    return path.name


def alerts(page: Path) -> list[str]:
    """Those that the page's first paragraph says lead to it."""
    first = page.read_text().split("\n\n", maxsplit=2)[1]
    assert first.startswith("**Alerts that lead here:** ")
    return re.findall(r"`(\w+)`", first)


def rules() -> dict[str, str]:
    """By alert: the page that its runbook_url names, or nothing."""
    found = {}
    for path in RULES:
        for rule in path.read_text().split("- alert: ")[1:]:
            page = re.search(r"runbook_url: \S*?(docs/\S+\.md)", rule)
            found[rule.split()[0]] = page[1] if page else ""
    return found


def test_every_alert_leads_to_one_page_which_names_it():
    led = {name: f"docs/runbooks/{page.name}" for page in RUNBOOKS for name in alerts(page)}
    assert len(led) == sum(len(alerts(page)) for page in RUNBOOKS)
    for name, url in rules().items():
        page = led.get(name, url)
        assert page and url in ("", page), name
        assert name in (ROOT / page).read_text()


@pytest.mark.parametrize("page", RUNBOOKS, ids=ids)
def test_a_runbook_says_what_is_asked_at_night(page):
    titles = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
    assert [title for title in titles if title in PARTS] == PARTS
    assert f"({page.name})" in (page.parent / "README.md").read_text()


@pytest.mark.parametrize("page", RUNBOOKS, ids=ids)
def test_events_reasons_and_metrics_of_a_runbook_exist(page):
    text = page.read_text()
    known = (ROOT / "docs" / "metrics.md").read_text()
    metrics = set(re.findall(r"`(nowconnect_\w+)", text))
    events = {
        word
        for line in re.findall(r"^.*grep .*log.*$", text, re.MULTILINE)
        for word in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", line)
    }
    written = {word for path in SOURCES for word in re.findall(r'"(\w+)"', path.read_text())}
    reasons = {reason.label for reason in Reason}
    assert not [name for name in metrics if f"`{name}`" not in known]
    assert not events - written - reasons
