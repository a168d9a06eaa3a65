"""An agent is locked out at one hub, and at once everywhere: by way of Redis, and when Redis is back."""

from __future__ import annotations

import subprocess

import pytest
from support.cluster import AGENT, Cluster
from support.ncfast_process import ncfast
from support.peer import Peer
from support.transfer import MIB, Transfer
from support.until import PATIENCE, wait_until


def ask(cluster: Cluster, hub: str, *words: str) -> str:
    """What a command that asks this hub prints."""
    host, port = cluster.hubs[hub].admin
    done = subprocess.run(
        ncfast(*words, "--url", f"http://{host}:{port}"), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def locks(cluster: Cluster) -> list[int]:
    return [len(hub.status()["locks"]) for hub in cluster.hubs.values()]


def ended(cluster: Cluster, hub: str) -> int:
    """Flows of this hub's clients that ended for the lock."""
    return cluster.hubs[hub].status()["flows"]["closed"].get("agent_locked", 0)


def tunnels(cluster: Cluster) -> int:
    return sum(len(hub.status()["agents"]) for hub in cluster.hubs.values())


@pytest.mark.parametrize("client", ["the owner", "the standby's hub", "a third hub"])
def test_an_agent_locked_at_one_hub_is_ended_at_all(make_cluster, peer: Peer, client: str) -> None:
    cluster: Cluster = make_cluster({"peer": peer.address})
    owner, standby, third = cluster.wait_settled()
    came, asked = {"the owner": (owner, third), "the standby's hub": (standby, third), "a third hub": (third, standby)}[
        client
    ]
    with (
        pytest.raises(AssertionError, match="ECONNRESET"),
        Transfer(peer, cluster.address(came), "cut", 8 * MIB) as transfer,
    ):
        transfer.wait_under_way()
        assert "locked out until" in ask(cluster, asked, "kick", AGENT, "--for", "10m", "--reason", "stolen")
        wait_until(lambda: ended(cluster, came) == 1, "the client's flow has ended, with its reason")
        wait_until(lambda: locks(cluster) == [1, 1, 1], "all hubs know")
        wait_until(lambda: not tunnels(cluster), "no tunnel stands")
    wait_until(lambda: not peer.counts()["active"], "the service's socket is closed, too")
    assert "(stolen)" in ask(cluster, owner, "agents")
    assert "let in again" in ask(cluster, came, "unlock", AGENT)
    wait_until(lambda: locks(cluster) == [0, 0, 0], "lifted")
    cluster.wait_settled()


def test_a_lock_taken_without_redis_is_in_force_there_and_elsewhere_when_it_is_back(make_cluster, peer: Peer) -> None:
    cluster: Cluster = make_cluster({"peer": peer.address})
    owner, standby, third = cluster.wait_settled()
    cluster.redis.kill()
    for name in cluster.names:
        wait_until(lambda name=name: not cluster.hubs[name].status()["cluster"]["registry"]["healthy"], "Redis missed")
    ask(cluster, owner, "kick", AGENT)
    assert [len(cluster.hubs[name].status()["locks"]) for name in (owner, standby, third)] == [1, 0, 0]
    cluster.redis.start()
    wait_until(lambda: locks(cluster) == [1, 1, 1], "all hubs know")
    wait_until(lambda: not tunnels(cluster), "no tunnel stands")
    ask(cluster, third, "kick", AGENT, "--for", "0")
    cluster.wait_settled()
