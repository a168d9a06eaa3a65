"""A hub that can be upgraded, and what lies before and behind it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.peer import Address, Peer
from support.topology import MakeTopology, Topology
from support.upgrading import UpgradingHub


def pytest_configure(config: pytest.Config) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


@pytest.fixture
def topology(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeTopology]:
    """Makes the test's topology; at its end, the conservation checks and the orderly shutdown."""
    made: list[Topology] = []
    request.node.topologies = made

    def make(connectors: dict[str, Address], **options: Any) -> Topology:
        directory = tmp_path / f"t{len(made)}"
        directory.mkdir()
        made.append(Topology(directory, connectors, make_hub=UpgradingHub, **options))
        return made[-1]

    with ExitStack() as ending:
        ending.callback(lambda: [each.close() for each in made])
        yield make
        report = getattr(request.node, "report_call", None)
        if report is not None and report.passed:
            for each in made:
                each.check()


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """The scripted service."""
    service = Peer(tmp_path_factory.mktemp("peer"))
    yield service
    service.stop()
