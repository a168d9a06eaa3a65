"""Fixtures of the cluster tests: services, and clusters that a module's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import services
from support.cluster import Cluster
from support.peer import Address, Peer
from support.until import wait_until

MakeCluster = Callable[..., Cluster]


@pytest.fixture(scope="package")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """The scripted service."""
    service = Peer(tmp_path_factory.mktemp("peer"))
    yield service
    service.stop()


@pytest.fixture(scope="package")
def ldap_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with services.slapd(tmp_path_factory.mktemp("ldap")) as address:
        yield address


class Keeper:
    """Holds a module's cluster, and makes a new one after a test that failed, which may have left it in any state."""

    def __init__(self, make: Callable[[], Cluster]) -> None:
        self._make = make
        self._cluster: Cluster | None = None

    def get(self) -> Cluster:
        if self._cluster is None:
            self._cluster = self._make()
        return self._cluster

    def discard(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.close()

    def finish(self) -> None:
        """The last checks, and an orderly end."""
        try:
            if self._cluster is not None:
                self._cluster.check()
        finally:
            self.discard()


@pytest.fixture(scope="module")
def _keeper(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, peer: Peer, ldap_service: Address
) -> Iterator[Keeper]:
    connectors = {"peer": peer.address, "ldap": ldap_service}

    def make() -> Cluster:
        options = getattr(request.module, "CLUSTER", {})
        made = {key: value() if callable(value) else value for key, value in options.items()}
        return Cluster(tmp_path_factory.mktemp("cluster"), connectors, **made)

    keeper = Keeper(make)
    try:
        yield keeper
        keeper.finish()
    finally:
        keeper.discard()


@pytest.fixture
def cluster(request: pytest.FixtureRequest, _keeper: Keeper, peer: Peer) -> Iterator[Cluster]:
    """The module's cluster, made with its ``CLUSTER`` options: settled before each test, whole and idle after it."""
    made = _keeper.get()
    request.node.topologies = [made]
    try:
        made.wait_settled()
        made.mark()
        yield made
    except BaseException:
        _keeper.discard()
        raise
    if not passed(request):
        _keeper.discard()
        return
    try:
        check_idle(made, peer)
    except BaseException:
        _keeper.discard()
        raise


@pytest.fixture
def make_cluster(
    request: pytest.FixtureRequest, tmp_path: Path, peer: Peer, ldap_service: Address
) -> Iterator[MakeCluster]:
    """Makes clusters of a test's own; at its end, the checks and the orderly shutdown."""
    made: list[Cluster] = []
    request.node.topologies = made

    def make(connectors: dict[str, Address] | None = None, **options: Any) -> Cluster:
        directory = tmp_path / f"c{len(made)}"
        directory.mkdir()
        made.append(Cluster(directory, connectors or {"peer": peer.address, "ldap": ldap_service}, **options))
        return made[-1]

    try:
        yield make
        if passed(request):
            for each in made:
                check_idle(each, peer)
                each.check()
    finally:
        for each in made:
            each.close()


def passed(request: pytest.FixtureRequest) -> bool:
    report = getattr(request.node, "report_call", None)
    return report is not None and report.passed


def check_idle(made: Cluster, peer: Peer) -> None:
    """Every flow is accounted for, and no target socket is left."""
    made.check_between()
    wait_until(lambda: not peer.counts()["active"], "every socket of the service closed")
