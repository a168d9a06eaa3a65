"""N with N - 1 as processes: an agent and two hubs, some of them of the tree before (`make test-previous`). Flows of
clients of both hubs survive cuts of tunnel and mesh, and the kill of their owner, whoever is older."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import AGENT, Cluster
from support.peer import Peer
from support.places import Loopback
from support.process import TESTS
from support.transfer import Transfer, strike
from support.until import wait_until

TREE = os.environ.get("NCFAST_PREVIOUS", "")
HUBS = ("hub-a", "hub-b")

pytestmark = pytest.mark.skipif(not TREE, reason="make test-previous builds the tree before")


class Mixed(Loopback):
    """Whoever is `older` runs from the tree before."""

    def __init__(self, older: frozenset[str]) -> None:
        super().__init__()
        self.older = older

    def prefix(self, name: str) -> list[str]:
        return ["env", f"PYTHONPATH={os.pathsep.join((TREE, str(TESTS)))}"] if name in self.older else []


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    service = Peer(tmp_path)
    yield service
    service.stop()


@pytest.fixture(
    params=[{"agent"}, {*HUBS}, {"hub-a"}, {"hub-b"}, {"agent", "hub-a"}, {"agent", "hub-b"}],
    ids=lambda older: " and ".join(sorted(older)),
)
def cluster(request: pytest.FixtureRequest, tmp_path: Path, peer: Peer) -> Iterator[Cluster]:
    places = Mixed(frozenset(request.param))
    made = Cluster(
        tmp_path, {"peer": peer.address}, names=HUBS, proxied=["tunnel", "mesh"], places=places, agents=False
    )
    made.add_agent(AGENT, first="hub-a", prefix=places.prefix("agent"))
    yield made
    made.close()


def test_flows_survive_whoever_is_older(cluster: Cluster, peer: Peer) -> None:
    def owned_by(name: str) -> None:
        wait_until(
            lambda: (
                {one: bool(entry["epoch"]) for one, entry in cluster.sessions().items()}
                == {one: one == name for one in HUBS}
            ),
            f"{name} to own the agent, and a standby at the other",
        )

    owned_by("hub-a")
    parts = {"agent": cluster.agent.program, **{name: hub.program for name, hub in cluster.hubs.items()}}
    older = {name for name, program in parts.items() if TREE in Path(f"/proc/{program.pid}/maps").read_text()}
    assert older == cluster.places.older, "who has the older modules loaded"
    near, far = (Transfer(peer, cluster.address(name), f"cut, of {name}") for name in HUBS)
    with near, far:
        strike(lambda: cluster.proxies["tunnel", "hub-a"].fault("rst"), near, far)
    owned_by("hub-b")
    with Transfer(peer, cluster.address("hub-a"), "mesh") as crossing:
        strike(lambda: [cluster.proxies["mesh", name].fault("rst") for name in HUBS], crossing)
    with Transfer(peer, cluster.address("hub-a"), "killed") as killed:
        strike(lambda: cluster.kill("hub-b"), killed)
    wait_until(lambda: cluster.owner() == "hub-a", "hub-a to own the agent")
    cluster.check_between()
