"""A Redis for each test, and its address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import Loopback
from support.redis_server import RedisServer


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, Loopback())
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def url(redis: RedisServer) -> str:
    host, port = redis.address
    return f"redis://{host}:{port}/0"
