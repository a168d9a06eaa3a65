"""A successor has loaded what it needs before flows lose their way at its predecessor: the modules of a mesh together
cost a tenth of a second, and a message that pydantic builds when it is first read some milliseconds; all flows would
wait for that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import Cluster
from support.peer import Peer
from support.successor import OperatedHub
from support.upgrading import Steady

# Runs in the successor: what it has loaded between its word that it serves, and the predecessor's that nothing is left.
NOTES = """
import os, sys
if "NCFAST_HANDOVER" in os.environ:
    from ncfast.core.messages import Message
    from ncfast.net.channel import Channel

    def kinds(kind):
        return {kind}.union(*map(kinds, kind.__subclasses__()))

    def loaded():
        built = {f"message {kind.__name__}" for kind in kinds(Message) if kind.__pydantic_complete__}
        return built | {name for name in sys.modules if name.startswith("ncfast.")}

    had, send = set(), Channel.send

    def noting(self, kind, *more, **named):
        if kind == "serving":
            had.update(loaded())
        if kind == "done":
            with open(os.path.join(os.path.dirname(__file__), "late"), "w") as file:
                file.write(" ".join(sorted(loaded() - had)))
        send(self, kind, *more, **named)

    Channel.send = noting
"""


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path, peer: Peer) -> Iterator[Cluster]:
    made = Cluster(tmp_path, {"peer": peer.address}, names=("hub-a", "hub-b"), make_hub=OperatedHub)
    request.node.topologies = [made]
    yield made
    made.close()


def test_nothing_is_loaded_while_flows_wait(cluster: Cluster, peer: Peer) -> None:
    owner = cluster.wait_owner()
    (origin,) = (name for name in cluster.names if name != owner)
    with Steady(peer, cluster.address(origin)) as transfer:
        transfer.wait_under_way()
        for name in (owner, origin):
            hub = cluster.hubs[name]
            assert isinstance(hub, OperatedHub)
            (hub.plants.directory / "sitecustomize.py").write_text(NOTES)
            done = hub.upgrade()
            assert done.returncode == 0, done.stderr
            transfer.wait_moved(1)
            assert (hub.plants.directory / "late").read_text() == "", name
