"""The last release beside the working tree: agents, hubs and the mesh between them, in both directions, with an owner
that is lost under a transfer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cluster import AGENT, Cluster
from support.ncfast_process import Agent
from support.peer import Peer
from support.places import Loopback
from support.transfer import Transfer, strike

from ncfast.auth import mint

OWNER, ORIGIN = "hub-a", "hub-b"
UNKNOWN_THEN = {"edge": {"tunnels_per_agent_per_sec": None}}  # keys of `FAST_HUB` that the release had not yet


class Mixed(Loopback):
    """Hubs by those names run the tree."""

    def __init__(self, tree: Path, old: frozenset[str]) -> None:
        super().__init__()
        self._prefix = ["env", f"PYTHONPATH={tree}"]
        self._old = old

    def prefix(self, name: str) -> list[str]:
        return self._prefix if name in self._old else []


@pytest.mark.parametrize(
    ("old", "agent_is_old"), [({OWNER}, False), ({ORIGIN}, True)], ids=["owner is old", "origin and agent are old"]
)
def test_one_works_with_the_other(
    tmp_path: Path, peer: Peer, released: Path, old: set[str], agent_is_old: bool
) -> None:
    """A link between two releases comes up, a flow crosses it, and goes on at the other release when the owner is
    killed."""
    places = Mixed(released, frozenset(old))
    names = (OWNER, ORIGIN)
    cluster = Cluster(tmp_path, {"peer": peer.address}, names=names, places=places, hub=UNKNOWN_THEN, agents=False)
    try:
        agent = Agent(
            tmp_path,
            hubs=[cluster.tunnel_url(name) for name in names],
            agent_id=AGENT,
            token=mint(cluster.key_file.read_bytes(), AGENT, connectors=["peer"]),
            connectors={"peer": "%s:%d" % peer.address},
            overrides={"allow_plaintext": True},
            prefix=places._prefix if agent_is_old else [],
        )
        cluster.agents.append(agent)
        _is_what_it_should_be(released, cluster, old, agent if agent_is_old else None)
        cluster.wait_ready()
        assert cluster.wait_owner() == OWNER
        agent.log.wait("standby_up")
        with Transfer(peer, cluster.address(ORIGIN)) as transfer:
            strike(lambda: cluster.kill(OWNER), transfer)
            assert cluster.wait_owner(other_than=OWNER) == ORIGIN
            transfer.wait_withheld()
        assert cluster.line_of(ORIGIN, transfer)["resumes"] >= 1
        cluster.check_between()
    finally:
        cluster.close()
        agent.stop()


def _is_what_it_should_be(tree: Path, cluster: Cluster, old: set[str], old_agent: Agent | None) -> None:
    """Each process has loaded its modules from where this test wants them."""
    pids = {hub.program.pid: name in old for name, hub in cluster.hubs.items()}
    pids[cluster.agents[0].program.pid] = old_agent is not None
    for pid, is_old in pids.items():
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert (str(tree / "ncfast") in maps) is is_old, json.dumps({"pid": pid, "old": is_old})
