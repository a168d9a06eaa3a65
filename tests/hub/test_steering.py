"""A flow on its way: what is noted of it, what M_OPEN and M_RESUME say there, and what becomes of it when agents and
links come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hub.far import OTHER_PROCESS, PROCESS, Agent
from hub.rooms import Rooms, identity, listener
from ncfast._frames import FrameType
from ncfast.core.errors import Reason
from ncfast.core.messages import Sought
from ncfast.core.opening import PACKED, Opening

OPEN, RESUME, DETACH = FrameType.M_OPEN, FrameType.M_RESUME, FrameType.M_DETACH


def test_an_open_names_the_agent_to_the_hub_that_owns_it_and_to_nobody_else():
    rooms = Rooms("active")
    hub = rooms.hub()
    rooms.elsewhere()
    near = rooms.agent("near", "near")
    rooms.client(listener(connector="near"))
    rooms.client()
    here, there = Opening.unpack(near.only(OPEN).payload), Opening.unpack(hub.only(OPEN).payload)
    assert (here.agent, there.agent) == ("", "site")
    assert here.origin == there.origin == "hub-a" and here.client == ("192.0.2.1", 4000, "", 0)


@pytest.mark.parametrize("packed", [False, True])
def test_an_open_is_packed_for_who_reads_that(packed):
    rooms = Rooms("active")
    hub = rooms.hub(features=["packed_open"] if packed else [])
    rooms.elsewhere()
    near = Agent(rooms, identity("near")).claim("near", features=["packed_open"] if packed else [])
    rooms.client(listener(connector="near"))
    rooms.client()
    bodies = [near.only(OPEN).payload, hub.only(OPEN).payload]
    assert [body.startswith(PACKED) for body in bodies] == [packed, packed]
    assert [Opening.unpack(body).agent for body in bodies] == ["", "site"]


def test_an_open_that_is_sent_again_has_the_form_of_its_new_way():
    rooms = Rooms("active")
    hub = rooms.hub(features=["packed_open"])
    rooms.elsewhere(epoch=5)
    rooms.client()
    before = hub.only(OPEN).payload
    after = Agent(rooms, identity("site")).claim(last_epoch=5).only(OPEN).payload
    assert before.startswith(PACKED) and not after.startswith(PACKED)
    assert Opening.unpack(before) == Opening.unpack(after)._replace(agent="site")


def test_a_flow_that_was_another_hubs_names_no_agent_when_it_is_opened_here():
    rooms = Rooms("active")
    hub = rooms.hub()
    rooms.elsewhere(epoch=5)
    client = rooms.client()
    hub.only(OPEN)
    agent = Agent(rooms, identity("site")).claim(last_epoch=5)
    opened = agent.only(OPEN)
    assert opened.cid == client.flow.cid and Opening.unpack(opened.payload).agent == ""
    assert (client.flow.info.path, client.flow.info.owner, client.flow.info.epoch) == ("local", "hub-a", 6)
    assert rooms.ground.stats.failovers == 1


def test_what_a_flow_was_asked_for_with_says_whose_it_is():
    rooms = Rooms("active")
    hub = rooms.hub()
    rooms.elsewhere()
    client = rooms.client()
    hub.accept(hub.only(OPEN))
    hub.send(DETACH, cid=client.flow.cid, epoch=1, code=Reason.LINK_LOST)
    rooms.steering.seek(client.flow, rooms.ground.clock())
    asked = hub.only(RESUME)
    assert asked.payload[:16] == client.flow.secret
    assert Sought.unpack(asked.payload[16:]) == Sought(agent="site", connector="ldap")


def test_the_credit_of_an_open_to_another_hub_is_the_agents():
    rooms = Rooms("active")
    hub = rooms.hub()
    rooms.elsewhere(window=40_000)
    client = rooms.client()
    client.socket.send(bytes(100_000))
    assert sum(len(one.payload) for one in hub.taken() if one.type is FrameType.M_DATA) == 40_000


# opens without an answer


@pytest.mark.parametrize("end", ["accepted", "refused", "reset by the client", "tunnel lost", "another way"])
def test_an_open_counts_as_pending_until_its_end(end):
    rooms = Rooms()
    agent = rooms.agent()
    client = rooms.client()
    opened = agent.only(OPEN)
    assert len(rooms.pending) == 1
    if end == "accepted":
        agent.accept(opened)
    elif end == "refused":
        agent.refuse(opened, Reason.TARGET_REFUSED)
    elif end == "reset by the client":
        client.socket.reset()
    elif end == "tunnel lost":
        agent.lose()
    else:
        again = rooms.agent()  # while the first stands
        assert len(rooms.pending) == 1, "the same open, counted once"
        again.accept(again.only(OPEN))
    rooms.run()
    assert len(rooms.pending) == 0


def test_an_open_that_is_sent_again_to_another_hub_counts_once():
    rooms = Rooms("active")
    rooms.hub()
    other = rooms.hub("hub-c")
    rooms.elsewhere(epoch=5)
    rooms.client()
    rooms.elsewhere(owner="hub-c", epoch=6)
    assert len(rooms.pending) == 1
    other.accept(other.only(OPEN))
    assert len(rooms.pending) == 0


def test_an_open_on_a_lost_link_is_pending_no_more():
    rooms = Rooms("active")
    hub = rooms.hub()
    rooms.elsewhere()
    client = rooms.client()
    hub.lose()
    assert len(rooms.pending) == 0 and client.flow.info.peer is None and client.reason is None


# agents come and go


def test_an_agent_that_comes_as_another_process_has_lost_its_flows():
    rooms = Rooms()
    first = rooms.agent()
    accepted, opening = rooms.client(), rooms.client()
    first.accept(first.taken()[0])
    first.lose()
    rooms.agent("site", process=OTHER_PROCESS)
    assert accepted.reason is opening.reason is Reason.AGENT_RESTARTED


def test_so_it_has_when_the_registry_says_so():
    rooms = Rooms("active")
    hub = rooms.hub()
    rooms.elsewhere(epoch=5)
    client = rooms.client()
    hub.accept(hub.only(OPEN))
    rooms.elsewhere(epoch=6, instance=PROCESS)
    assert client.reason is None
    rooms.elsewhere(epoch=7, instance=OTHER_PROCESS)
    assert client.reason is Reason.AGENT_RESTARTED


def test_a_tunnel_that_was_replaced_leaves_the_flows_of_its_successor_alone():
    rooms = Rooms()
    first = rooms.agent()
    client = rooms.client()
    first.only(OPEN)
    second = rooms.agent()
    assert first.link.closed and client.flow.info.session is second.session
    rooms.steering.agent_lost(first.session)
    assert client.flow.info.session is second.session and len(rooms.pending) == 1


def test_flows_by_agent_hold_what_lives_and_nothing_else():
    rooms = Rooms()
    agents = [rooms.agent("one"), rooms.agent("two")]
    client = rooms.client()
    key = client.flow.info.agent_key
    assert list(rooms.steering.flows_of(key)) == [client.flow]
    by = next(agent for agent in agents if agent.session.key == key)
    by.refuse(by.only(OPEN), Reason.TARGET_REFUSED)
    assert not rooms.steering.flows_of(key) and list(rooms.steering.flows_of(client.flow.info.agent_key))
    client.flow.reset(Reason.CLIENT_RESET)
    assert rooms.steering._flows_of == {}


# seeking


def test_a_flow_whose_agent_is_here_is_not_sought_elsewhere():
    """The agent asks itself."""
    rooms = Rooms("active")
    hub = rooms.hub()
    before = rooms.elsewhere(epoch=5)
    client = rooms.client()
    hub.accept(hub.only(OPEN))
    Agent(rooms, identity("site")).claim(last_epoch=5)
    rooms.registry.view.put(before)  # the view lags behind
    hub.send(DETACH, cid=client.flow.cid, epoch=5, code=Reason.LINK_LOST)
    hub.taken()
    rooms.steering.seek(client.flow, rooms.ground.clock())
    assert hub.taken() == [] and not client.flow.attached


def test_an_older_entry_of_the_view_is_not_whom_a_flow_asks():
    """Rule 4: the flow has been carried under a later epoch by another hub."""
    rooms = Rooms("active")
    hub, other = rooms.hub(), rooms.hub("hub-c")
    rooms.elsewhere(epoch=5)
    client = rooms.client()
    hub.accept(hub.only(OPEN))
    other.vouch(client.flow.cid, 6, client.flow.secret)
    other.taken()
    other.send(DETACH, cid=client.flow.cid, epoch=6, code=Reason.LINK_LOST)
    rooms.steering.seek(client.flow, rooms.ground.clock())
    assert other.only(RESUME).epoch == 6 and hub.taken() == []


def test_an_opening_flow_is_not_opened_where_its_agent_only_was():
    """An owner that the view does not name any more may not know the agent; an accepted flow may ask it."""
    rooms = Rooms("active")
    hub = rooms.hub()
    rooms.elsewhere()
    client = rooms.client()
    hub.send(DETACH, cid=hub.only(OPEN).cid, epoch=1, code=Reason.LINK_LOST)
    rooms.registry.view.drop("/site")
    rooms.steering.seek(client.flow, rooms.ground.clock())
    assert hub.taken() == [] and not client.flow.attached


@pytest.mark.parametrize("opening", [True, False])
def test_a_flow_is_not_sought_in_another_process_of_its_agent_of_which_the_view_knows_first(opening):
    """The open may have reached a target: sent to the next process it would reach one twice (seed 6012832)."""
    rooms = Rooms("active")
    hub = rooms.hub()
    before = rooms.elsewhere(epoch=5)
    client = rooms.client()
    if opening:
        hub.only(OPEN)
    else:
        hub.accept(hub.only(OPEN))
    hub.send(DETACH, cid=client.flow.cid, epoch=5, code=Reason.LINK_LOST)
    hub.taken()
    rooms.registry.view.put(replace(before, epoch=6, instance=OTHER_PROCESS))  # and we have not been told yet
    rooms.steering.seek(client.flow, rooms.ground.clock())
    assert hub.taken() == [] and client.reason is Reason.AGENT_RESTARTED


def test_the_opens_of_clients_that_come_together_leave_behind_the_last():
    rooms = Rooms()
    agent = rooms.agent()
    rooms.ground.context.cork()
    rooms.client()
    rooms.client()
    assert agent.types() == [], "another turn of the loop is not waited for, nor is it enough"
    rooms.ground.context.uncork()
    assert agent.types() == [OPEN, OPEN]
    rooms.client()
    assert agent.types() == [OPEN], "who comes by another way leaves with the turn"
    rooms.ground.context.uncork()
    assert agent.types() == []
