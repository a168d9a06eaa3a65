"""The agent in `examples/agent-go`, written from docs/protocol.md alone: built, held against the vectors and the
scripted hub, and put to work at two real hubs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import Cluster
from support.peer import Peer
from support.process import Program, require
from support.transfer import Transfer, strike
from support.until import wait_until

from conformance.playing import broken
from conformance.test_agents import SCENARIOS
from ncfast.auth import mint
from ncfast.conformance.agents.player import ScriptedHub
from ncfast.conformance.run import launch

SOURCE = Path(__file__).parents[2] / "examples" / "agent-go"
AGENT = "site-go"
# Nothing is fetched: the module needs the standard library alone. The build cache is the user's own; the toolchain
# itself removes from it what was not used for some days.
OFFLINE = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}


def go(*words: str) -> subprocess.CompletedProcess[str]:
    (program,) = require("go")
    return subprocess.run([program, *words], cwd=SOURCE, env={**os.environ, **OFFLINE}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def agent_go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("go") / "agent-go"
    built = go("build", "-o", str(program), ".")
    for word, why in (("go.mod requires go >=", "is too old"), ("GOCACHE", "has no place for its build cache")):
        if word in built.stderr:
            pytest.skip(f"the Go toolchain {why}: {built.stderr.strip()}")
    assert built.returncode == 0, built.stderr
    return program


def test_it_passes_its_own_tests_over_the_vectors(agent_go: Path) -> None:
    tested = go("test", "-count=1", ".")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_it_keeps_every_rule(agent_go: Path) -> None:
    command = [str(agent_go), "-hub", "{hub}", "-hub", "{other_hub}", "-agent-id", "{agent_id}"]
    command += ["-connector", "{connector}={target}", "-token-file", "{token_file}"]
    stays = [one for one in SCENARIOS if not one.needs & {"drain", "moves_again", "proxy"}]
    assert not broken(ScriptedHub, stays, launch(command))


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    service = Peer(tmp_path)
    yield service
    service.stop()


@pytest.fixture
def cluster(tmp_path: Path, peer: Peer) -> Iterator[Cluster]:
    """Two hubs without agents; a fault proxy before the tunnels of the first."""
    made = Cluster(tmp_path, {"peer": peer.address}, names=("hub-a", "hub-b"), proxied=["tunnel"], agents=False)
    yield made
    made.close()


def test_its_flows_survive_at_real_hubs(agent_go: Path, cluster: Cluster, peer: Peer, tmp_path: Path) -> None:
    """A client of one hub: its tunnel is reset under bytes, and the agent claims over its standby, so the flow goes on
    over the other hub; when that is killed, it comes back."""
    token = tmp_path / "token"
    token.write_text(mint(cluster.key_file.read_bytes(), AGENT, connectors=["peer"]))
    hubs = [word for name in cluster.names for word in ("-hub", cluster.tunnel_url(name))]
    words = [*hubs, "-agent-id", AGENT, "-connector", "peer={}:{}".format(*peer.address), "-token-file", str(token)]
    agent = Program("agent-go", [str(agent_go), *words], tmp_path)

    def stands(owner: str, standby: str) -> None:
        wait_until(
            lambda: (
                {name: bool(entry["epoch"]) for name, entry in cluster.sessions(AGENT).items()}
                == {owner: True, standby: False}
            ),
            lambda: f"{owner} to own the agent, and its standby at {standby}\n{agent.tail()}",
        )

    try:
        stands("hub-a", "hub-b")
        with Transfer(peer, cluster.address("hub-a"), "cut") as cut:
            strike(lambda: cluster.proxies["tunnel", "hub-a"].fault("rst"), cut)
        stands("hub-b", "hub-a")
        with Transfer(peer, cluster.address("hub-a"), "killed") as killed:
            strike(lambda: cluster.kill("hub-b"), killed)
        wait_until(lambda: cluster.owner(AGENT) == "hub-a", lambda: f"hub-a to own the agent\n{agent.tail()}")
        lines = cluster.hubs["hub-a"].access_lines(listener="peer")
        assert [line["resumes"] > 0 for line in lines] == [True, True], lines
        cluster.hubs["hub-a"].check_conservation()
        cluster.hubs["hub-a"].check_log()
        assert agent.stop() == 0, agent.tail()
    finally:
        agent.stop()
