"""Which links to other hubs stand, and who lives behind a cid."""

from __future__ import annotations

import pytest

from hub.rooms import Rooms
from ncfast._frames import FrameType
from ncfast.core.errors import Reason


@pytest.mark.parametrize(("mode", "clustered", "active"), [("off", 0, 0), ("shadow", 1, 0), ("active", 1, 1)])
def test_the_mode_says_whether_flows_come_from_other_hubs_and_go_there(mode, clustered, active):
    ways = Rooms(mode).ways
    assert (ways.clustered, ways.active) == (clustered, active)


def test_without_a_mesh_there_is_nobody():
    rooms = Rooms("active")
    hub = rooms.hub()
    rooms.ways.mesh = None
    ways, cid = rooms.ways, hub.cid()
    assert not ways.clustered and not ways.active and ways.peers() == []
    assert ways.peer("hub-b") is None and ways.origin(cid) is None and not ways.former(cid)


def test_a_successor_has_other_hubs_before_it_is_in_the_mesh():
    """An agent may have claimed here although the predecessor has not said yet that it has left the mesh."""
    rooms = Rooms("active")
    cid = rooms.hub().cid()
    rooms.ways.mesh = None
    rooms.cluster.inherit()
    agent = rooms.agent()
    assert rooms.ways.clustered and rooms.ways.active
    agent.resume(cid, bytes(16))
    assert agent.only(FrameType.M_DETACH).code == Reason.LINK_LOST


def test_a_successor_that_is_to_be_alone_is():
    rooms = Rooms("off")
    rooms.cluster.inherit()
    assert not rooms.ways.clustered and not rooms.ways.active


def test_a_link_is_found_by_its_hub_and_by_the_cids_of_its_clients():
    rooms = Rooms("active")
    hub, other = rooms.hub(), rooms.hub("hub-c")
    ways = rooms.ways
    assert ways.peers() == [hub.peer, other.peer]
    assert ways.peer("hub-c") is ways.origin(other.cid(7)) is other.peer
    other.lose()
    assert ways.peers() == [hub.peer] and ways.peer("hub-c") is ways.origin(other.cid(7)) is None


def test_a_process_is_former_when_its_replica_has_come_back_as_another():
    rooms = Rooms("active")
    hub = rooms.hub()
    cid = hub.cid()
    hub.lose()
    assert not rooms.ways.former(cid)
    rooms.hub(instance=b"reborn..")
    assert rooms.ways.former(cid) and not rooms.ways.former(b"reborn.." + bytes(8))


def test_a_process_is_present_while_the_registry_knows_it_link_or_no_link():
    rooms = Rooms("active")
    rooms.known("hub-b", b"hub-b...")
    cid = b"hub-b..." + bytes(8)
    assert rooms.ways.present(cid) and rooms.ways.origin(cid) is None
    rooms.known("hub-b", b"reborn..")
    assert not rooms.ways.present(cid)
