"""A reload in the middle of a hub's upgrade, when its predecessor still listens wherever it does; real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.ncfast_process import merged
from support.peer import Peer, byte_exact, run_flow
from support.successor import OperatedHub
from support.topology import Topology
from support.until import wait_until

from bench.ports import free_port

HOST = "127.0.0.1"


@pytest.fixture
def made(tmp_path: Path, peer: Peer) -> Iterator[Topology]:
    """A hub that is active in a cluster, at ports that stay."""
    secret = tmp_path / "mesh.secret"
    secret.write_text("s" * 40)
    mesh = {
        "listen": f"{HOST}:{free_port()}",
        "listen_unix": str(tmp_path / "mesh.sock"),
        "require_mtls": False,
        "secret_file": str(secret),
    }
    made = Topology(
        tmp_path,
        {"peer": peer.address},
        make_hub=OperatedHub,
        hub={"ha": {"enabled": True, "mode": "active", "replica_id": "hub-a", "mesh": mesh}},
        listener={"bind": f"{HOST}:{free_port()}"},
    )
    yield made
    made.close()


def listens(where: str) -> bool:
    """Whether somebody does at host:port, or at a path."""
    host, _, port = where.rpartition(":")
    with socket.socket(socket.AF_INET if port.isdigit() else socket.AF_UNIX) as sock:
        return sock.connect_ex((host, int(port)) if port.isdigit() else where) == 0


def serves(made: Topology, peer: Peer) -> None:
    script = [["send", 10], ["fin"], ["drain"]]
    both = asyncio.run(run_flow(peer, made.address("peer"), client=script, service=script))
    byte_exact(both.client, 10)


def without_the_cluster(config: Mapping[str, Any]) -> dict[str, Any]:
    return merged(config, {"ha": {"mode": "off"}})


def without_the_listener(config: Mapping[str, Any]) -> dict[str, Any]:
    return merged(config, {"listeners": []})


def listening_everywhere(config: Mapping[str, Any]) -> dict[str, Any]:
    """At the same port, which cannot be bound beside that of one address."""
    (one,) = config["listeners"]
    return merged(config, {"listeners": [{**one, "bind": one["bind"].replace(HOST, "0.0.0.0")}]})


@pytest.mark.parametrize("other", [without_the_cluster, without_the_listener, listening_everywhere])
def test_what_is_closed_and_opened_again(made: Topology, peer: Peer, other: Any) -> None:
    hub = made.hub
    mesh = hub.config["ha"]["mesh"]
    places = [mesh["listen"], mesh["listen_unix"], hub.config["listeners"][0]["bind"]]
    hub.plant("waits before over")
    hub.program.signal(signal.SIGUSR2)
    successor = hub.log.wait("upgrade_started")["pid"]
    wait_until((made.directory / f"waits.{hub.program.pid}").exists, "the predecessor to have nothing left to pass")
    hub.log.wait("mesh_ready", count=2)

    def answers() -> int:
        return sum(len(hub.log.events(one)) for one in ("config_reloaded", "config_refused", "reload_waits"))

    for config in (other(hub.config), hub.config):
        before = answers()
        hub.write_config(config)
        os.kill(successor, signal.SIGHUP)
        wait_until(lambda before=before: answers() > before, "a word on the reload")
    hub.program.signal(signal.SIGHUP)  # to the predecessor, which passes it on
    hub.plant("")
    hub.log.wait("upgraded")
    hub.log.wait("config_reloaded", count=3)
    assert [hub.log.events(one) for one in ("config_refused", "listener_down", "mesh_down")] == [[], [], []]
    assert all(map(listens, places)) and hub.status()["mode"] == "active"
    serves(made, peer)
    assert hub.reload(other(hub.config)) and hub.reload(hub.config), "and when the upgrade is over"
    assert all(map(listens, places)) and hub.status()["mode"] == "active"
    serves(made, peer)
