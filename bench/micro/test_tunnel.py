"""All that the product does for a message between both sockets, without kernel and event loop."""

from __future__ import annotations

import pytest

from bench.micro.ends import Tunnel

BULK = 65_024  # bytes that a socket with more is read at once (FULL_READ of core/ends.pxd)


@pytest.mark.parametrize("size", [128, 4096])
def test_round_trip(benchmark, size):
    tunnel = Tunnel()
    message = b"x" * size

    def round_trip() -> None:
        tunnel.hub.read(message)
        tunnel.settle()
        tunnel.agent.read(message)
        tunnel.settle()

    benchmark(round_trip)
    assert tunnel.hub.received == tunnel.agent.received > 0


@pytest.mark.parametrize("way", ["upload", "download"])
def test_a_full_read(benchmark, way):
    tunnel = Tunnel()
    sender, receiver = (tunnel.hub, tunnel.agent) if way == "upload" else (tunnel.agent, tunnel.hub)
    data = b"x" * BULK
    sent = 0

    def move() -> None:
        nonlocal sent
        sender.read(data)
        tunnel.settle()
        sent += BULK

    benchmark(move)
    assert receiver.received == sent
