"""What the tests of this folder stand on, without a hub: transfers, searches, faults, Redis and networks that break."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from support.fault_proxy import FaultProxy
from support.ldap import LdapConversation, LdapLoop
from support.namespaces import Namespaces
from support.peer import Address, Peer
from support.places import Loopback
from support.redis_server import RedisServer
from support.transfer import MIB, Transfer
from support.until import PATIENCE, wait_until

SMALL = 24 * MIB


@pytest.fixture
def proxy(tmp_path: Path, peer: Peer) -> Iterator[FaultProxy]:
    made = FaultProxy(tmp_path, peer.address)
    yield made
    made.stop()


def test_transfer_sees_every_byte_both_ways(proxy: FaultProxy, peer: Peer) -> None:
    with Transfer(peer, proxy.address, "direct") as transfer:
        transfer.wait_under_way()
        assert transfer.received() == (transfer.first, transfer.first)
        transfer.surge()
        assert transfer.both_moving()
        transfer.wait_withheld()
        assert transfer.received() == (48 * MIB, 48 * MIB)
    assert proxy.stats()["forwarded"] > 2 * transfer.size


def test_transfer_whose_connection_breaks_fails_the_test(proxy: FaultProxy, peer: Peer) -> None:
    with (
        pytest.raises(AssertionError, match="transfer broken"),
        Transfer(peer, proxy.address, "broken", SMALL) as transfer,
    ):
        transfer.wait_under_way()
        proxy.fault("rst")


@pytest.mark.parametrize("way", ["up", "down"])
def test_lost_one_way_moves_only_the_other(proxy: FaultProxy, peer: Peer, way: str) -> None:
    transfer = Transfer(peer, proxy.address, way)
    heard, deaf = (0, 1) if way == "up" else (1, 0)
    goal = transfer.size - transfer.withheld
    seen: list[tuple[int, ...]] = []
    with pytest.raises(AssertionError, match="ECONNRESET|EOF"), transfer:
        transfer.wait_under_way()
        proxy.fault(f"drop_{way}")
        transfer.surge()
        wait_until(lambda: transfer.received()[heard] == goal, "the other way done")
        seen.append(transfer.received())
        proxy.fault("rst")
    assert seen[0][deaf] == transfer.first


def test_shaped_ways_keep_the_bytes(proxy: FaultProxy, peer: Peer) -> None:
    proxy.shape(delay=0.02)
    with Transfer(peer, proxy.address, "late") as transfer:
        transfer.wait_under_way()
        proxy.shape("up", slice=1400)
        proxy.shape("down", trickle=4 * MIB)
        transfer.surge()
        transfer.wait_moved(MIB)
        proxy.shape()


def test_frozen_proxy_loses_nothing(proxy: FaultProxy, peer: Peer) -> None:
    with Transfer(peer, proxy.address, "frozen", SMALL) as transfer:
        transfer.wait_under_way()
        proxy.freeze()
        transfer.surge()
        assert proxy.stats()["active"] == 1
        assert transfer.received() == (transfer.first, transfer.first)
        proxy.thaw()


def test_searches_and_a_conversation(ldap_service: Address, tmp_path: Path) -> None:
    with LdapLoop(ldap_service, "direct") as loop, LdapConversation(ldap_service, tmp_path, "direct") as conversation:
        conversation.ask()
        loop.goes_on(2)
    assert loop.failed == 0


def test_search_that_cannot_connect_fails_the_test(ldap_service: Address, tmp_path: Path) -> None:
    proxy = FaultProxy(tmp_path, ldap_service)
    try:
        with LdapLoop(proxy.address, "sometimes", may_fail=True) as loop:
            proxy.fault("down")
            wait_until(lambda: loop.failed, "a search that failed")
            proxy.up()
        with (
            pytest.raises(AssertionError, match="ldapsearch through strict"),
            LdapLoop(proxy.address, "strict") as loop,
        ):
            proxy.fault("down")
            loop.goes_on(1000)
    finally:
        proxy.stop()


def test_redis_dies_and_freezes_and_comes_back_empty(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, Loopback())
    try:
        with server.client() as client:
            client.set("k", "v")
        assert server.commands()["set"] == 1
        server.freeze()
        with server.client(0.5) as client, pytest.raises(redis.TimeoutError):
            client.ping()
        server.thaw()
        with server.client() as client:
            assert client.get("k") == "v"
        server.kill()
        assert not server.answers()
        server.start()
        with server.client() as client:
            assert client.get("k") is None
    finally:
        server.stop()


ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], 4000)) as listener:
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        with client:
            while data := client.recv(100):
                client.sendall(data)
"""


def test_networks_break_silently_one_way_and_by_a_pulled_plug(tmp_path: Path) -> None:
    places = Namespaces()
    try:
        for name in ("one", "two"):
            places.host(name)
        echo = subprocess.Popen(
            [*places.prefix("one"), sys.executable, "-c", ECHO, places.host("one")], stdout=subprocess.PIPE, text=True
        )
        try:
            assert echo.stdout and echo.stdout.readline() == "ready\n"
            with socket.create_connection((places.host("one"), 4000), timeout=PATIENCE) as client:
                client.sendall(b"here")
                assert client.recv(100) == b"here"
            pings = {
                "whole": lambda: None,
                "both ways": lambda: places.partition("two", "one"),
                "there": lambda: places.partition("two", "one", both_ways=False),
                "back": lambda: places.partition("one", "two", both_ways=False),
                "unplugged": lambda: places.unplug("two"),
                "healed": lambda: None,
            }
            for state, fault in pings.items():
                fault()
                whole = state in ("whole", "healed")
                assert reaches(places, "two", "one", PATIENCE if whole else 0.7) == whole, state
                places.heal()
        finally:
            echo.kill()
            echo.wait()
            echo.stdout.close()
    finally:
        places.close()
    left = subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True)
    assert not [link for link in json.loads(left.stdout) if link["ifname"].startswith(places.tag)]


def reaches(places: Namespaces, one: str, other: str, seconds: float) -> bool:
    """Whether a connection from one host to the other carries a byte there and back in that time."""
    program = (
        "import socket\n"
        f"with socket.create_connection(('{places.host(other)}', 4000), timeout={seconds}) as client:\n"
        "    client.sendall(b'x')\n"
        "    assert client.recv(1) == b'x'\n"
    )
    done = subprocess.run([*places.prefix(one), sys.executable, "-c", program], capture_output=True)
    return done.returncode == 0
