"""The hub among others: its mesh, opened and closed as the mode says, and which room hears what a link brings."""

from __future__ import annotations

import pytest

from hub import doors as d
from hub.far import WINDOW
from hub.rooms import Rooms
from ncfast._frames import FrameType
from ncfast.config.ha import Ha
from ncfast.config.values import Address
from ncfast.core.errors import Reason
from ncfast.hub.cluster import Cluster, mesh_url


class Room:
    """Writes down what it is told, and by which name."""

    def __init__(self, name: str, told: list[tuple]) -> None:
        self._name = name
        self._told = told

    def __getattr__(self, what: str):
        def hear(*arguments):
            self._told.append((self._name, what, *arguments))
            return True

        return hear


@pytest.fixture
def told() -> list[tuple]:
    return []


@pytest.fixture
def rooms(told) -> Rooms:
    """A hub whose rooms above the cluster only listen."""
    rooms = Rooms("active")
    names = ("steering", "router", "resuming", "relays")
    rooms.cluster = Cluster(rooms.ground, rooms.registry, rooms.ways, *(Room(name, told) for name in names))
    rooms.ways.mesh.host = rooms.cluster
    return rooms


# what links bring


def test_a_link_that_comes_up_is_the_routers_and_one_that_ends_the_relays_before_steering(rooms, told):
    hub = rooms.hub()
    assert told == [("router", "peer_up", hub.peer)]
    told.clear()
    hub.lose()
    assert told == [("relays", "peer_lost", hub.peer), ("steering", "peer_lost", hub.peer)]


def test_an_open_is_the_relays(rooms, told):
    hub = rooms.hub()
    told.clear()
    hub.open(hub.cid(), 3)
    ((room, what, *arguments),) = told
    assert (room, what, arguments[:4]) == ("relays", "open", [hub.peer, hub.cid(), 3, WINDOW])


def test_a_resume_is_for_a_client_of_ours_or_for_one_of_theirs(rooms, told):
    hub = rooms.hub()
    ours = rooms.ground.instance + bytes(8)
    told.clear()
    hub.vouch(ours, 3, bytes(16))
    hub.seek(hub.cid(), 3)
    assert [one[:5] for one in told] == [
        ("resuming", "by_owner", hub.peer, ours, 3),
        ("relays", "resume_from_origin", hub.peer, hub.cid(), 3),
    ]


def test_news_of_a_later_epoch_is_for_those_who_resume():
    rooms = Rooms("active")
    told: list[tuple] = []
    rooms.cluster._resuming = Room("resuming", told)
    hub = rooms.hub()
    rooms.elsewhere(epoch=3)
    client = rooms.client()
    hub.accept(hub.only(FrameType.M_OPEN))
    hub.send(FrameType.M_DETACH, cid=client.flow.cid, epoch=3, code=Reason.STALE_EPOCH, seq=9)
    assert told == [("resuming", "outdated", hub.peer, client.flow.cid, 9)]


def test_we_tell_the_others_that_we_leave_also_those_that_come_later(rooms):
    hub = rooms.hub()
    rooms.cluster.say_leaving()
    assert hub.only(FrameType.GOAWAY).code == Reason.DRAINING
    assert rooms.hub("hub-c").only(FrameType.GOAWAY).code == Reason.DRAINING


def test_a_link_that_falls_silent_is_ended_by_the_clock(rooms):
    hub = rooms.hub()
    timeout = rooms.ground.config.ha.mesh.ping_timeout_sec
    for _ in range(int(timeout) + 2):
        rooms.cluster.tick(rooms.ground.clock())
        rooms.wait(1)
    assert hub.link.closed


# the mesh


def play(tmp_path, mode, scene):
    async def main():
        async with d.doors(tmp_path, mode) as hub:
            await scene(hub)

    d.run(main)


def turn(hub: d.Doors, mode: str) -> None:
    config = hub.ground.config
    hub.ground.config = config.model_copy(update={"ha": config.ha.model_copy(update={"mode": mode})})


def test_the_mesh_follows_the_mode(tmp_path):
    async def scene(hub):
        await hub.cluster.follow_mode()
        mesh = hub.ways.mesh
        assert mesh.address and hub.ground.readiness.mode == "shadow"
        turn(hub, "active")
        await hub.cluster.follow_mode()
        assert hub.ways.mesh is mesh and hub.ways.active and hub.ground.readiness.mode == "active"
        turn(hub, "off")
        await hub.cluster.follow_mode()
        assert hub.ways.mesh is None and hub.ground.readiness.mode == "off"
        with pytest.raises(OSError):
            await d.dial(mesh.address)

    play(tmp_path, "shadow", scene)


def test_a_mesh_that_cannot_be_opened_changes_nothing(tmp_path):
    async def scene(hub):
        taken = await hub.listen(d.listener())
        ha = hub.ground.config.ha
        mesh = ha.mesh.model_copy(update={"listen": Address("127.0.0.1", d.port(taken.address))})
        hub.ground.config = hub.ground.config.model_copy(update={"ha": ha.model_copy(update={"mesh": mesh})})
        hub.ground.readiness.mode = "off"
        with pytest.raises(OSError):
            await hub.cluster.follow_mode()
        assert hub.ways.mesh is None and hub.ground.readiness.mode == "off"

    play(tmp_path, "shadow", scene)


def test_a_retiring_mesh_stays_when_its_successor_cannot_be_opened(tmp_path):
    async def scene(hub):
        await hub.cluster.follow_mode()
        mesh = hub.ways.mesh
        mesh.retire()
        taken = await hub.listen(d.listener())
        ha = hub.ground.config.ha
        listen = ha.mesh.model_copy(update={"listen": Address("127.0.0.1", d.port(taken.address))})
        hub.ground.config = hub.ground.config.model_copy(update={"ha": ha.model_copy(update={"mesh": listen})})
        with pytest.raises(OSError):
            await hub.cluster.follow_mode()
        assert hub.ways.mesh is mesh and mesh.retiring

    play(tmp_path, "shadow", scene)


def test_a_retiring_mesh_has_no_place_to_take_back(tmp_path):
    """Flows were on its links when a successor had it end them, and died."""

    async def scene(hub):
        await hub.cluster.follow_mode()
        mesh = hub.ways.mesh
        mesh.retire()
        hub.cluster.part()
        hub.replicas = [hub.registry.replica]
        hub.known("hub-b", b"hub-b...", "tcp://127.0.0.1:1")
        hub.cluster.rejoin()
        assert not mesh.routes and mesh.retired

    play(tmp_path, "shadow", scene)


def test_hubs_that_the_registry_knows_are_dialled_and_we_are_not(tmp_path):
    async def scene(hub):
        hub.replicas = [hub.registry.replica]
        hub.known("hub-b", b"hub-b...", "tcp://127.0.0.1:1")
        hub.known("hub-a", hub.ground.instance, "tcp://127.0.0.1:2")
        await hub.cluster.follow_mode()
        assert list(hub.ways.mesh.routes) == ["tcp://127.0.0.1:1"]
        hub.known("hub-b", b"hub-b...", "tcp://127.0.0.1:3")
        hub.cluster.replicas_changed()
        assert list(hub.ways.mesh.routes) == ["tcp://127.0.0.1:3"]

    play(tmp_path, "shadow", scene)


@pytest.mark.parametrize(
    ("mesh", "url"),
    [
        (
            {"advertise": "tls://hub-a.example:9500", "listen": ":9500", "require_mtls": False, "secret_file": "/s"},
            "tls://hub-a.example:9500",
        ),
        ({"listen": "192.0.2.1:9500", "require_mtls": False, "secret_file": "/s"}, "tcp://192.0.2.1:9500"),
        ({"listen": ":9500", "require_mtls": False, "secret_file": "/s"}, ""),
        ({"listen": "127.0.0.1:0", "require_mtls": False, "secret_file": "/s"}, ""),
    ],
    ids=["as advertised", "as bound", "anywhere", "port of the kernel's choice"],
)
def test_where_the_others_reach_us(mesh, url):
    assert mesh_url(Ha.model_validate({"enabled": True, "mode": "active", "replica_id": "hub-a", "mesh": mesh})) == url
