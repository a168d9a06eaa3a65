"""Epochs that somebody has made up, in HELLO or in Redis: the agent whose name they carry gets in all the same."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest
from support.cluster import AGENT, NAMES, Cluster
from support.peer import Peer, byte_exact, run_flow
from support.raw_tunnel import RawTunnel, ws_frame
from support.until import wait_until

from ncfast._frames import FrameType, encode
from ncfast.auth import mint
from ncfast.core.epochs import LARGEST, claimable, possible

DAY = 86_400_000_000  # microseconds
PROTOCOL_ERROR, SUPERSEDED = 1002, 4003  # close codes
KEY = f"/{AGENT}"
BEYOND = {
    "a day above": lambda: claimable(time.time()) + DAY,
    "near the end": lambda: LARGEST,
    "at the end": lambda: 2**53 - 1,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Cluster]:
    one = Cluster(tmp_path_factory.mktemp("epochs"), {"peer": peer.address}, proxied=("tunnel",))
    yield one
    one.check()
    one.close()


@pytest.fixture
def cluster(request: pytest.FixtureRequest, made: Cluster, peer: Peer) -> Iterator[Cluster]:
    """Settled before and after, and clients of each hub are served by the agent."""
    request.node.topologies = [made]
    made.wait_settled()
    yield made
    made.wait_settled()
    for name in NAMES:
        wait_until(lambda name=name: any(one["agent_id"] == AGENT for one in made.routes(name)), f"{name} knows it")
        both = asyncio.run(run_flow(peer, made.address(name), client=[["drain"]], service=[["send", 1000], ["fin"]]))
        byte_exact(both.client, 1000)


def hello(cluster: Cluster, name: str, last_epoch: int) -> RawTunnel:
    """A stranger with the agent's token says it at a hub."""
    token = mint(cluster.key_file.read_bytes(), AGENT, connectors=["peer"])
    body = {"version": 1, "agent_id": AGENT, "instance": "0" * 32, "connectors": [], "window": 1 << 18}
    tunnel = RawTunnel(cluster.hubs[name].edge).upgrade(token)
    said = json.dumps({**body, "last_epoch": last_epoch}).encode()
    tunnel.send(ws_frame(encode(FrameType.HELLO, payload=said)))
    return tunnel


@pytest.mark.parametrize("beyond", BEYOND)
def test_an_epoch_beyond_reason_is_a_protocol_error_and_moves_nobody(cluster: Cluster, beyond: str) -> None:
    epochs = cluster.epochs()
    for name in NAMES:
        with hello(cluster, name, BEYOND[beyond]()) as liar:
            assert liar.close_code() == PROTOCOL_ERROR
    assert cluster.epochs() == epochs


def test_the_largest_epoch_that_is_believed_takes_the_agent_and_the_agent_takes_it_back(cluster: Cluster) -> None:
    """On each hub, then over a cut tunnel, and after the loss of all that Redis knows."""
    for name in NAMES:
        grants = cluster.grants()
        with hello(cluster, name, claimable(time.time()) - DAY) as liar:
            assert liar.close_code() == SUPERSEDED  # by the agent itself
        assert cluster.wait_grant(grants) > claimable(time.time()) - 2 * DAY
    cluster.check_epochs()
    grants, owner = cluster.grants(), cluster.wait_owner()
    assert cluster.redis is not None
    with cluster.redis.client() as client:
        client.flushall()
    cluster.proxies["tunnel", owner].fault("rst")
    cluster.wait_grant(grants)
    cluster.check_epochs()


@pytest.mark.parametrize("epoch", ["beyond", "at the end", "not a number"])
@pytest.mark.parametrize("where", ["epochs", "agents"])
def test_what_was_poisoned_in_redis_keeps_nobody_out(cluster: Cluster, where: str, epoch: str) -> None:
    """The owner's hub loses the tunnel: the next claim, at another hub, is granted above the last."""
    said = {"beyond": str(possible(time.time()) + DAY), "at the end": str(2**53), "not a number": "poison"}[epoch]
    owner, grants = cluster.wait_owner(), cluster.grants()
    assert cluster.redis is not None
    with cluster.redis.client() as client:
        if where == "epochs":
            client.hset("ncfast:{ncfast}:epochs", KEY, said)
        else:
            good = client.hget("ncfast:{ncfast}:agents", KEY)
            client.hset("ncfast:{ncfast}:agents", KEY, said + good[good.index("\n") :])
    cluster.proxies["tunnel", owner].fault("rst")
    epoch_now = cluster.wait_grant(grants)
    assert epoch_now <= claimable(time.time())
    cluster.check_epochs()
    with cluster.redis.client() as client:
        wait_until(
            lambda: (client.hget("ncfast:{ncfast}:agents", KEY) or "").startswith(f"{cluster.epochs()[-1]}\n"),
            "the record is the agent's again",
        )
