"""A hub's flows one by one: which are found first, what is shown of them, and one ended by hand."""

from __future__ import annotations

import io

import pytest
from support.fake_hub import whole

from hub.rooms import Rooms, listener
from hub.test_relays import relayed
from ncfast._frames import FrameType
from ncfast.core.errors import Reason
from ncfast.hub import flows
from ncfast.hub.flows import MOST, ORDERS, Flows, NoSuchFlow, Query, QueryRefused
from ncfast.observe import log

ANSWER = 120_000  # bytes: more than is written to a socket without asking


def found(rooms: Rooms, **asked) -> dict:
    return whole(Flows(rooms.ground, rooms.relays).select(Query(**asked)))


def cids(rooms: Rooms, **asked) -> list[str]:
    return [row["cid"] for row in found(rooms, **asked)["flows"]]


def served(rooms: Rooms, agent, sent: int = 0, **settings):
    """A client whose flow the agent has accepted, and that has sent so many bytes."""
    client = rooms.client(listener(**settings))
    agent.accept(next(one for one in agent.taken() if one.type is FrameType.M_OPEN))
    if sent:
        client.socket.send(b"x" * sent)
    rooms.run()
    return client


def answer(agent, client) -> None:
    """`ANSWER` bytes come for a client that reads nothing."""
    client.socket.appetite = 0
    for seq in range(0, ANSWER, ANSWER // 4):
        payload = b"y" * (ANSWER // 4)
        agent.send(FrameType.M_DATA, cid=client.flow.cid, epoch=client.flow.epoch, seq=seq, payload=payload)


def acknowledge(agent, client, ack: int) -> None:
    agent.send(FrameType.M_ACK, cid=client.flow.cid, epoch=client.flow.epoch, ack=ack, limit=1 << 20)


def test_the_first_by_each_order():
    rooms = Rooms()
    agent = rooms.agent()
    old = served(rooms, agent)
    rooms.wait(10)
    moved = served(rooms, agent, 3000)
    acknowledge(agent, moved, 3000)
    rooms.wait(10)
    held = served(rooms, agent, 1000)
    by = {order: cids(rooms, order=order) for order in ORDERS}
    assert by["held"][0] == held.flow.cid.hex() and by["moved"][0] == moved.flow.cid.hex()
    assert by["age"] == [one.flow.cid.hex() for one in (old, moved, held)]
    assert by["idle"][0] == old.flow.cid.hex()
    assert cids(rooms, order="age", top=2) == by["age"][:2]
    row = found(rooms)["flows"][0]
    assert (row["held_bytes"], row["bytes_in"], row["age_sec"]) == (1000, 1000, 0)
    assert (row["path"], row["state"], row["listener"], row["agent_id"]) == ("local", "open", "in", "site")


def test_bytes_that_wait_for_a_client_are_held_for_it():
    rooms = Rooms()
    agent = rooms.agent()
    slow = served(rooms, agent)
    answer(agent, slow)
    document = found(rooms)
    assert document["flows"][0]["to_client_bytes"] == document["flows"][0]["held_bytes"] == ANSWER
    assert document["matching_held_bytes"] == document["memory"]["held_bytes"] == ANSWER


def test_who_is_asked_for():
    rooms = Rooms()
    site, other = rooms.agent("site"), rooms.agent("other", "ssh")
    mine, theirs = served(rooms, site, name="one"), served(rooms, other, name="two", connector="ssh")
    for asked in ({"listener": "one"}, {"agent": "site"}, {"agent": "/site"}):
        document = found(rooms, **asked)
        assert [row["cid"] for row in document["flows"]] == [mine.flow.cid.hex()], asked
        assert document["matching"] == 1 and document["active"] == 2
    assert cids(rooms, agent="other") == [theirs.flow.cid.hex()]
    assert len(cids(rooms, client="192.0.2.1")) == len(cids(rooms, client="192.0.2.1:4000")) == 2
    assert cids(rooms, client="192.0.2.2") == cids(rooms, client="192.0.2") == []


@pytest.mark.parametrize("rule", ["truncate", "hash"])
def test_a_masked_client_is_neither_shown_nor_to_be_guessed(rule):
    rooms = Rooms()
    served(rooms, rooms.agent())
    try:
        log.setup(mask=rule, stream=io.StringIO(), format="json")
        (row,) = found(rooms)["flows"]
        assert "192.0.2.1" not in str(row)
        assert cids(rooms, client="192.0.2.1") == cids(rooms, client="192.0.2.1:4000") == []
        assert cids(rooms, client=row["client"]) == [row["cid"]]
    finally:
        log.setup()


@pytest.mark.parametrize(
    "text", ["order=size", "top=0", f"top={MOST + 1}", "top=-1", "top=²", "top=1e3", "top=", "who=me", "top=99999"]
)
def test_a_question_without_sense_is_refused(text):
    with pytest.raises(QueryRefused):
        Query.read(text)


def test_a_question_is_read():
    assert Query.read("") == Query("held", flows.FIRST)
    said = Query.read("order=idle&top=7&listener=l&agent=t%2Fa&client=%5B%3A%3A1%5D%3A5")
    assert said == Query("idle", 7, "l", "t/a", "[::1]:5")


def test_a_slice_measures_few_and_shows_few(monkeypatch):
    monkeypatch.setattr(flows, "MEASURED", 4)
    monkeypatch.setattr(flows, "SHOWN", 3)
    rooms = Rooms()
    agent = rooms.agent()
    for _ in range(20):
        served(rooms, agent)
    done: list[int] = []
    for name in ("_measure", "_row"):
        was = getattr(Flows, name)

        def counted(self, one, was=was):
            done[-1] += 1
            return was(self, one)

        monkeypatch.setattr(Flows, name, counted)
    work = Flows(rooms.ground, rooms.relays).select(Query(top=20))
    document = None
    while document is None:
        done.append(0)
        try:
            next(work)
        except StopIteration as end:
            document = end.value
    assert len(document["flows"]) == 20 and sum(done) == 40
    assert max(done) <= 4


def test_what_ends_between_two_slices_is_in_no_row(monkeypatch):
    monkeypatch.setattr(flows, "MEASURED", 1)
    rooms = Rooms()
    agent = rooms.agent()
    clients = [served(rooms, agent) for _ in range(3)]
    work = Flows(rooms.ground, rooms.relays).select(Query())
    next(work)
    clients[1].flow.reset(Reason.DRAINING)
    with pytest.raises(StopIteration) as end:
        while True:
            next(work)
    assert end.value.value["matching"] == 2


def test_talkers_are_the_first_of_each_order_once():
    rooms = Rooms()
    agent = rooms.agent()
    for number in range(flows.TALKERS + 3):
        served(rooms, agent, 100 * number)
        rooms.wait(1)
    talkers = whole(Flows(rooms.ground, rooms.relays).talkers())
    assert len({row["cid"] for row in talkers}) == len(talkers) <= 3 * flows.TALKERS
    assert set(cids(rooms, order="age", top=flows.TALKERS)) <= {row["cid"] for row in talkers}
    assert set(cids(rooms, order="held", top=flows.TALKERS)) <= {row["cid"] for row in talkers}


# killed


def test_a_flow_that_is_killed_is_reset_at_both_ends_and_lets_go_of_all_it_held():
    rooms = Rooms()
    agent = rooms.agent()
    client = served(rooms, agent, 2000)
    answer(agent, client)
    assert rooms.ground.context.held >= ANSWER + 2000
    agent.taken()
    row = Flows(rooms.ground, rooms.relays).kill(client.flow.cid.hex())
    assert row["cid"] == client.flow.cid.hex()
    rooms.run()
    assert client.reason is Reason.KILLED and client.socket.saw_reset
    reset = agent.only(FrameType.M_RST)
    assert (reset.cid, reset.code) == (client.flow.cid, Reason.KILLED)
    assert rooms.ground.context.held == 0 and not rooms.ground.flows


def test_a_flow_that_waits_behind_a_reader_s_end_is_killed_too():
    """The client's direction has ended, and what it gets waits for it: a reset alone would wait for its reading."""
    rooms = Rooms()
    agent = rooms.agent()
    client = served(rooms, agent)
    answer(agent, client)
    agent.send(FrameType.M_FIN, cid=client.flow.cid, epoch=client.flow.epoch, seq=ANSWER)
    Flows(rooms.ground, rooms.relays).kill(client.flow.cid.hex())
    rooms.run()
    assert client.reason is Reason.KILLED and rooms.ground.context.held == 0


def test_a_client_that_waits_for_an_agent_is_killed():
    rooms = Rooms()
    rooms.agent().lose()
    client = rooms.client(listener(hold_sec=30))
    assert sum(rooms.router.hold.count.values()) == 1
    Flows(rooms.ground, rooms.relays).kill(client.flow.cid.hex())
    rooms.run()
    rooms.router.tick(rooms.ground.clock())
    assert client.reason is Reason.KILLED and sum(rooms.router.hold.count.values()) == 0


def test_a_relayed_flow_is_shown_and_killed_at_both_sides():
    rooms, hub, agent, cid = relayed()
    (row,) = found(rooms)["flows"]
    assert (row["cid"], row["path"], row["hub"], row["agent_id"]) == (cid.hex(), "relayed", "hub-b", "site")
    assert found(rooms, agent="site")["matching"] == 1
    assert found(rooms, listener="in")["matching"] == found(rooms, client="192.0.2.1")["matching"] == 0
    Flows(rooms.ground, rooms.relays).kill(cid.hex())
    assert hub.only(FrameType.M_RST).code == agent.only(FrameType.M_RST).code == Reason.KILLED
    assert rooms.relays.by_cid == {} and found(rooms)["relayed"] == 0


@pytest.mark.parametrize("cid", ["", "00" * 16, "00", "not hex", "é"])
def test_no_such_flow(cid):
    rooms = Rooms()
    served(rooms, rooms.agent())
    with pytest.raises(NoSuchFlow):
        Flows(rooms.ground, rooms.relays).kill(cid)
    assert len(rooms.ground.flows) == 1
