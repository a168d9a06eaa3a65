"""A hub is upgraded, and its clients and services see a pause."""

from __future__ import annotations

from support.ncfast_process import ACCESS
from support.peer import Peer
from support.topology import MakeTopology
from support.upgrading import Steady


def test_transfers_each_way_go_on_in_the_successor(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    with Steady(peer, made.address("peer")) as transfer:
        transfer.wait_under_way()
        for number in (1, 2):
            done = made.hub.upgrade()
            assert (done["result"], done["passed"]) == ("done", 1)
            transfer.wait_moved(1)
    line = made.hub.log.wait(ACCESS)
    assert line["handovers"] == 2 and line["reason"] == "closed", line
