"""Who is asked to move, when, and what comes of it: the rules of `ncfast.hub.level`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mesh.hubs import SECRET

from hub.far import Agent, OtherHub
from hub.rooms import Rooms, identity
from ncfast._frames import FrameType
from ncfast.core.messages import Move
from ncfast.hub import level
from ncfast.hub.level import MoveRefused
from ncfast.observe.readiness import State

LEVEL = {"rest_sec": 60, "moves_per_sec": 1}


def rooms_with(*agents: str, hubs: tuple[str, ...] = ("hub-b",), rested: bool = True, **settings) -> Rooms:
    """hub-a with these agents, and other hubs that have none."""
    ha = {
        "enabled": True,
        "mode": "active",
        "replica_id": "hub-a",
        "mesh": {"listen": "127.0.0.1:0", "require_mtls": False, "secret_file": SECRET},
        "level": LEVEL | settings,
    }
    rooms = Rooms("active", ha=ha)
    rooms.others = [OtherHub(rooms, name) for name in hubs]
    rooms.there = [rooms.agent(name) for name in agents]
    if rested:
        pass_time(rooms, 61.0)
    return rooms


def pass_time(rooms: Rooms, seconds: float) -> None:
    """Half a second at a time, as the hub's timer looks."""
    for _ in range(round(seconds * 2)):
        rooms.wait(0.5)
        rooms.level.tick(rooms.ground.clock())
        rooms.run()


def moved(rooms: Rooms) -> dict[str, str]:
    """Agents that have been asked since last looked, and where to."""
    asked = {}
    for one in rooms.there:
        for frame in one.taken():
            if frame.type is FrameType.MOVE:
                assert frame.epoch == one.session.epoch
                asked[one.session.agent_id] = Move.unpack(frame.payload).replica_id
    return asked


def arrives(rooms: Rooms, name: str, owner: str = "hub-b") -> None:
    """It has claimed at the other hub, and leaves us."""
    rooms.elsewhere(name, owner, epoch=9)
    (agent,) = [one for one in rooms.there if one.session.agent_id == name]
    agent.lose()
    rooms.there.remove(agent)


NAMES = ("one", "two", "three", "four")


def test_a_hub_above_its_share_asks_as_many_as_are_too_many_and_no_more():
    rooms = rooms_with(*NAMES)
    pass_time(rooms, 10)
    asked = moved(rooms)
    assert len(asked) == 2 and set(asked.values()) == {"hub-b"}
    assert rooms.level.share == 2 and rooms.level.begun and rooms.level.under_way == 2
    for name in asked:
        arrives(rooms, name)
    pass_time(rooms, 10)
    assert not moved(rooms) and not rooms.level.begun and rooms.level.under_way == 0
    assert rooms.ground.stats.level_moves == {"asked": 2, "done": 2}


def test_what_is_too_many_goes_where_it_lacks():
    rooms = rooms_with(*"abcdef", hubs=("hub-b", "hub-c"), moves_per_sec=10)
    pass_time(rooms, 2)
    assert sorted(moved(rooms).values()) == ["hub-b", "hub-b", "hub-c", "hub-c"]


def test_so_many_in_a_second_and_no_more():
    rooms = rooms_with(*(f"a{number}" for number in range(20)), rested=False, rest_sec=1, moves_per_sec=0.5)
    pass_time(rooms, 4)
    first = moved(rooms)
    assert 1 <= len(first) <= 2
    pass_time(rooms, 8)
    assert len(moved(rooms)) == 4


def test_one_above_the_share_is_no_reason():
    rooms = rooms_with("one", "two")
    rooms.elsewhere("three", "hub-b")
    rooms.elsewhere("four", "hub-b")
    rooms.agent("five")
    pass_time(rooms, 120)
    assert not moved(rooms) and rooms.level.share == 3


def test_those_who_have_just_come_are_left_alone():
    rooms = rooms_with(*NAMES, rested=False)
    pass_time(rooms, 59)
    assert not moved(rooms) and rooms.level.begun
    pass_time(rooms, 4)
    assert len(moved(rooms)) == 2


def test_those_with_the_fewest_flows_go_first():
    rooms = rooms_with("busy", "idle", "calm", rested=False)
    for one in rooms.there:
        one.session.owned_since -= 100
    for _ in range(3):
        rooms.client()
    loads = {one.session.agent_id: one.session.load for one in rooms.there}
    loads.pop(busy := max(loads, key=lambda name: loads[name]))
    pass_time(rooms, 6)
    assert busy not in moved(rooms)


def test_one_whose_tunnel_is_full_is_left_where_it_is():
    asked: list[str] = []
    for _ in range(2):
        rooms = rooms_with(*NAMES, rested=False)
        for one in rooms.there:
            one.session.owned_since -= 100
            if one.session.key in asked:
                one.wire.protocol.pause_writing()
        pass_time(rooms, 6)
        asked.append(next(iter(rooms.level._asked)))
    assert asked[0] != asked[1]


def test_one_that_stays_is_left_alone_and_another_is_asked():
    rooms = rooms_with(*NAMES)
    pass_time(rooms, 10)
    first = moved(rooms)
    for one in rooms.there:
        if one.session.agent_id in first:
            one.send(FrameType.MOVE, payload=Move(replica_id="hub-b").pack())
    assert rooms.ground.stats.level_moves == {"asked": 2, "refused": 2}
    pass_time(rooms, 10)
    second = moved(rooms)
    assert len(second) == 2 and not first.keys() & second.keys()
    pass_time(rooms, level.PATIENCE)  # these do not even answer
    assert rooms.ground.stats.level_moves["expired"] == 2 and not moved(rooms)
    pass_time(rooms, 5 * 60 - level.PATIENCE)
    assert moved(rooms).keys() == first.keys()


def test_a_word_about_a_move_that_nobody_asked_for_changes_nothing():
    rooms = rooms_with(*NAMES, rested=False)
    rooms.there[0].send(FrameType.MOVE, payload=Move(replica_id="hub-b").pack())
    assert not rooms.ground.stats.level_moves and not rooms.there[0].link.closed


def test_one_that_was_asked_and_is_elsewhere_is_given_up():
    rooms = rooms_with(*NAMES, hubs=("hub-b", "hub-c"))
    pass_time(rooms, 10)
    name, where = next(iter(moved(rooms).items()))
    arrives(rooms, name, "hub-c" if where == "hub-b" else "hub-b")
    pass_time(rooms, 1)
    assert rooms.ground.stats.level_moves["expired"] == 1


def test_one_that_is_known_to_be_where_it_was_asked_to_go_is_not_fenced():
    rooms = rooms_with("one", rested=False)
    rooms.level.move("one", "hub-b")
    session = rooms.there[0].session
    rooms.claims.fenced(rooms.elsewhere("one", "hub-b", epoch=9))
    rooms.run()
    assert session.link.closed and not rooms.ground.stats.takeovers


def unlink(rooms):
    rooms.others[0].lose()


def drain(rooms):
    rooms.ground.readiness.move(State.DRAINING)


def other_drains(rooms):
    rooms.replicas = [replace(one, draining=one.replica_id == "hub-b") for one in rooms.replicas]
    rooms.registry.view.set_replicas([(one, 0, 0) for one in rooms.replicas])


def lose_redis(rooms):
    rooms.registry.is_healthy = lambda: False


def configured(**ha):
    def change(rooms):
        config = rooms.ground.config
        rooms.ground.config = config.model_copy(update={"ha": config.ha.model_copy(update=ha)})

    return change


def off(rooms):
    config = rooms.ground.config.ha.level.model_copy(update={"enabled": False})
    configured(level=config)(rooms)


@pytest.mark.parametrize("why", [unlink, drain, other_drains, lose_redis, configured(mode="shadow"), off])
def test_nobody_is_asked(why):
    rooms = rooms_with(*NAMES, rested=False)
    for one in rooms.there:
        one.session.owned_since -= 100
    why(rooms)
    pass_time(rooms, 20)
    assert not moved(rooms)


def test_a_hub_of_no_weight_gives_all():
    rooms = rooms_with("one", "two", "three", weight=0, moves_per_sec=10)
    assert rooms.registry.replica.weight == 0
    rooms.known("hub-a", rooms.ground.instance)  # as the others see it
    rooms.replicas = [replace(one, weight=0 if one.replica_id == "hub-a" else 100) for one in rooms.replicas]
    rooms.registry.view.set_replicas([(one, 0, 0) for one in rooms.replicas])
    pass_time(rooms, 3)
    assert len(moved(rooms)) == 3 and rooms.level.share == 0


def test_a_new_weight_is_told_to_the_others():
    rooms = rooms_with("one", rested=False)
    configured(level=rooms.ground.config.ha.level.model_copy(update={"weight": 30}))(rooms)
    pass_time(rooms, 1)
    assert rooms.registry.replica.weight == 30


# what an operator asks


def test_an_operator_moves_one_wherever_and_whenever():
    rooms = rooms_with("one", hubs=("hub-b", "hub-c"), rested=False)
    rooms.elsewhere("two", "hub-b")
    assert rooms.level.move("one", "hub-b") == "hub-b" and moved(rooms) == {"one": "hub-b"}
    assert rooms.level.move("/one", None) == "hub-c" and moved(rooms) == {"one": "hub-c"}  # it has the fewest
    arrives(rooms, "one", "hub-c")
    pass_time(rooms, 1)
    assert rooms.ground.stats.level_moves == {"asked": 2, "expired": 1, "done": 1}


@pytest.mark.parametrize(
    ("agent", "hub", "why"),
    [
        ("nobody", None, "no agent nobody"),
        ("two", None, "two is owned by hub-b: ask there"),
        ("acme/one", None, "no agent acme/one"),
        ("one", "hub-a", "one cannot move to hub-a"),
        ("one", "hub-z", "one cannot move to hub-z"),
    ],
)
def test_an_operator_is_told_why_not(agent, hub, why):
    rooms = rooms_with("one", rested=False)
    rooms.elsewhere("two", "hub-b")
    with pytest.raises(MoveRefused, match=why):
        rooms.level.move(agent, hub)
    assert not moved(rooms)


def test_an_agent_that_has_not_said_that_it_moves_is_not_asked():
    rooms = rooms_with("one", "two", hubs=("hub-b",), rested=False)
    rooms.there += [Agent(rooms, identity(name)).claim(features=[]) for name in ("old", "older")]
    pass_time(rooms, 70)
    assert moved(rooms).keys() == {"one", "two"}
    with pytest.raises(MoveRefused, match="old does not move"):
        rooms.level.move("old", "hub-b")


def test_a_standby_is_not_asked():
    rooms = rooms_with("one", rested=False)
    standby = Agent(rooms, identity("two"))
    standby.hello("ldap", standby=True)
    with pytest.raises(MoveRefused, match="no agent two"):
        rooms.level.move("two", "hub-b")
    drain(rooms)
    with pytest.raises(MoveRefused, match="not now"):
        rooms.level.move("one", "hub-b")
