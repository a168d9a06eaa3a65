"""Two upgrades of a small form of it, and one that ends a flow; `make upgrades` is the long form, with every case."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.successor import OperatedHub

from .__main__ import NUMBER
from .load import SMALL
from .play import play
from .report import render
from .services import Services, services
from .sites import CASES, Case, Site

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "upgrades.md"


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("services")) as running:
        yield running


def test_a_hub_twice(tmp_path: Path, behind: Services) -> None:
    case = Case("single hub", "nginx", "hub")
    seen = asyncio.run(play(case, behind, tmp_path / "case", SMALL, 2))
    assert seen.passed and seen.upgrades == 2, seen.lost
    assert all(load.done for load in seen.loads.values()), seen.loads
    assert "**1 of 1** cases without a loss" in render([seen])


def test_a_hand_over_that_ends_a_flow_is_seen(tmp_path: Path, behind: Services) -> None:
    def plant(made: Site) -> None:
        (hub,) = made.every_hub()
        assert isinstance(hub, OperatedHub)
        hub.plant("drops a flow")

    seen = asyncio.run(play(Case("single hub", "plain", "hub"), behind, tmp_path / "case", SMALL, 1, prepare=plant))
    assert not seen.passed
    assert "**0 of 1** cases without a loss" in render([seen])


def test_what_the_report_has_are_cases_without_a_loss() -> None:
    text = REPORT.read_text()
    rows = re.findall(r"^\| (\w+ hubs?) \| (\w+) \| ([\w ]+) \| (\d+) \| [\d,]+ \| 0 \|", text, re.MULTILINE)
    assert {Case(topology, tunnels, upgraded) for topology, tunnels, upgraded, _ in rows} <= set(CASES)  # type: ignore[arg-type]
    assert len(rows) > 1 and {int(number) for *_, what, number in rows if what != "nothing"} == {NUMBER}
    assert "**no**" not in text and "## Failures" not in text
