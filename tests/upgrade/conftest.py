"""A hub that can be upgraded, and what lies before and behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.process import open_many
from support.topology import MakeTopology, topologies
from support.upgrading import UpgradingHub


def pytest_configure(config: pytest.Config) -> None:
    open_many()


@pytest.fixture
def topology(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeTopology]:
    with topologies(request, tmp_path, make_hub=UpgradingHub) as make:
        yield make
