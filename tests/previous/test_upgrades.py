"""From N - 1 to N, back, and to N again, hub and agent in turn, with one transfer over all of it."""

from __future__ import annotations

import os
from pathlib import Path

from support.peer import Peer
from support.process import TESTS
from support.successor import OperatedAgent, OperatedHub
from support.topology import Topology
from support.upgrading import Steady

from .conftest import REPOSITORY


def test_to_the_next_release_and_back(tmp_path: Path, peer: Peer, handing_over: Path) -> None:
    installed = tmp_path / "installed"

    def install(tree: Path) -> None:
        fresh = tmp_path / "fresh"
        fresh.symlink_to(tree)
        fresh.rename(installed)

    install(handing_over)
    made = Topology(
        tmp_path,
        {"peer": peer.address},
        prefix=["env", f"PYTHONPATH={os.pathsep.join((str(installed), str(TESTS)))}"],
        make_hub=OperatedHub,
        make_agent=OperatedAgent,
    )
    try:
        with Steady(peer, made.address("peer")) as transfer:
            transfer.wait_under_way()
            for tree in (REPOSITORY, handing_over, REPOSITORY):
                install(tree)
                for one in (made.hub, made.agent):
                    assert isinstance(one, OperatedHub | OperatedAgent)
                    mark = one.log.mark()
                    done = one.upgrade()
                    assert done.returncode == 0, done.stderr
                    successor = one.log.wait("upgraded", after=mark)["pid"]
                    loaded = Path(f"/proc/{successor}/maps").read_text()
                    assert (str(handing_over) in loaded) == (tree is handing_over), "who has which modules loaded"
                    transfer.wait_moved(1)
    finally:
        made.close()
