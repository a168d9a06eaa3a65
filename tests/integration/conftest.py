"""Fixtures of the integration tests: services, and the topology in front of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import services
from support.peer import Address, Peer
from support.process import open_many
from support.topology import MakeTopology, Topology, topologies


def pytest_configure(config: pytest.Config) -> None:
    open_many()
    config.addinivalue_line("markers", "traffic: also holds without hub and agent, under --direct")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--direct"):
        traffic = [item for item in items if item.get_closest_marker("traffic")]
        config.hook.pytest_deselected(items=[item for item in items if item not in traffic])
        items[:] = traffic


@pytest.fixture
def topology(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeTopology]:
    with topologies(request, tmp_path, direct=request.config.getoption("--direct")) as make:
        yield make


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Topology]:
    """One plain topology for a module's tests of traffic: connectors ``peer`` and ``armed``."""
    connectors = {"peer": peer.address, "armed": peer.armed_address}
    directory = tmp_path_factory.mktemp("shared")
    made = Topology(directory, connectors, direct=request.config.getoption("--direct"))
    failed = request.session.testsfailed
    try:
        yield made
        if request.session.testsfailed == failed:
            made.check()
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _logs_of_shared(request: pytest.FixtureRequest) -> None:
    """A failing test that uses the shared topology shows its logs."""
    if "shared" in request.fixturenames:
        request.node.topologies = [request.getfixturevalue("shared")]


@pytest.fixture(scope="module")
def ldap_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with services.slapd(tmp_path_factory.mktemp("ldap")) as address:
        yield address


@pytest.fixture(scope="module")
def redis_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with services.redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture(scope="module")
def iperf3_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with services.iperf3_server(tmp_path_factory.mktemp("iperf3")) as address:
        yield address


@pytest.fixture(scope="module")
def http_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def http_service(http_directory: Path) -> Iterator[Address]:
    with services.http_files(http_directory) as address:
        yield address
