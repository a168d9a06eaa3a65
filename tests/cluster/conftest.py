"""Fixtures of the cluster tests: services, and clusters that a module's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import services
from support.peer import Address, Peer


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
