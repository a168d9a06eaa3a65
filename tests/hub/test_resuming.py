"""Who may ask for a flow of our clients, under which epoch, and what is said to the others."""

from __future__ import annotations

import pytest

from hub.far import OTHER_PROCESS, Agent, OtherHub
from hub.rooms import Client, Rooms, identity
from ncfast._frames import FrameType
from ncfast.core.errors import Reason

OPEN, RESUME, RESUME_ACK = FrameType.M_OPEN, FrameType.M_RESUME, FrameType.M_RESUME_ACK
RST, DETACH = FrameType.M_RST, FrameType.M_DETACH
NOT_ITS_SECRET = bytes(16)


def local() -> tuple[Rooms, Client, Agent]:
    """A flow that is carried by the tunnel of an agent that has come again."""
    rooms = Rooms()
    first = rooms.agent()
    client = rooms.client()
    first.accept(first.only(OPEN))
    first.lose()
    return rooms, client, rooms.agent()


def elsewhere(epoch: int = 5) -> tuple[Rooms, Client, OtherHub]:
    """A flow that is carried by another hub, under this epoch."""
    rooms = Rooms("active")
    hub = rooms.hub()
    rooms.elsewhere(epoch=epoch)
    client = rooms.client()
    hub.accept(hub.only(OPEN))
    return rooms, client, hub


# by an agent that is owned here


def test_its_agent_gets_the_flow():
    _, client, agent = local()
    agent.resume(client.flow.cid, client.flow.secret)
    assert agent.types() == [RESUME_ACK] and client.flow.attached


def test_who_does_not_show_the_secret_does_not_get_the_flow():
    _, client, agent = local()
    agent.resume(client.flow.cid, NOT_ITS_SECRET)
    assert agent.only(RST).code == Reason.RESUME_DENIED
    assert not client.flow.attached and client.reason is None


def test_another_agent_does_not_get_the_flow_even_with_its_secret():
    rooms, client, _ = local()
    thief = rooms.agent("thief")
    thief.resume(client.flow.cid, client.flow.secret)
    assert thief.only(RST).code == Reason.RESUME_DENIED
    assert not client.flow.attached and client.reason is None


def test_another_process_of_the_agent_does_not_get_the_flow():
    _, client, agent = local()
    agent.session.instance = OTHER_PROCESS
    agent.resume(client.flow.cid, client.flow.secret)
    assert agent.only(RST).code == Reason.RESUME_DENIED and not client.flow.attached


def test_its_own_agent_that_shows_a_wrong_secret_on_its_own_tunnel_ends_the_flow():
    """It has dropped the flow by that, and would leave the bytes unanswered."""
    rooms = Rooms()
    agent = rooms.agent()
    client = rooms.client()
    agent.accept(agent.only(OPEN))
    agent.resume(client.flow.cid, NOT_ITS_SECRET)
    assert client.reason is Reason.RESUME_DENIED and agent.only(RST).code == Reason.RESUME_DENIED


def test_an_agent_whose_token_no_longer_covers_the_connector_loses_the_flow():
    rooms, client, agent = local()
    agent.session.identity = identity("site", "other")
    agent.resume(client.flow.cid, client.flow.secret)
    assert client.reason is Reason.SCOPE_DENIED and agent.only(RST).code == Reason.SCOPE_DENIED


def test_an_agent_here_under_an_older_epoch_than_the_flow_has_seen_is_told_the_newest():
    """Rule 4."""
    rooms, client, agent = local()
    client.flow.info.epoch = 9
    agent.resume(client.flow.cid, client.flow.secret)
    told = agent.only(DETACH)
    assert (told.code, told.seq) == (Reason.STALE_EPOCH, 9)
    assert not client.flow.attached and rooms.ground.stats.epochs_refused == 1


def test_an_agent_that_asks_for_what_ended_hears_that_there_is_no_such_flow():
    _, client, agent = local()
    client.flow.reset(Reason.CLIENT_RESET)
    agent.resume(client.flow.cid, client.flow.secret)
    assert agent.only(RST).code == Reason.UNKNOWN_FLOW


# by the hub that owns the agent


def test_the_owner_gets_the_flow_and_may_come_from_another_hub_under_a_later_epoch():
    rooms, client, hub = elsewhere()
    other = rooms.hub("hub-c")
    other.vouch(client.flow.cid, 6, client.flow.secret)
    assert other.types() == [RESUME_ACK]
    info = client.flow.info
    assert (info.peer, info.owner, info.epoch) == (other.peer, "hub-c", 6)
    assert rooms.ground.stats.failovers == 1


@pytest.mark.parametrize("wrong", ["secret", "agent", "process"])
def test_an_owner_that_vouches_for_somebody_else_does_not_get_the_flow(wrong):
    rooms, client, hub = elsewhere()
    other = rooms.hub("hub-c")
    said = {"agent": "thief"} if wrong == "agent" else {"process": OTHER_PROCESS} if wrong == "process" else {}
    other.vouch(client.flow.cid, 6, NOT_ITS_SECRET if wrong == "secret" else client.flow.secret, **said)
    assert other.only(RST).code == Reason.RESUME_DENIED
    assert client.flow.info.peer is hub.peer and client.flow.attached


@pytest.mark.parametrize("epoch", [2**52, 2**53, 2**63, 2**64 - 1])
def test_an_owner_under_an_epoch_beyond_reason_does_not_get_the_flow(epoch):
    rooms, client, hub = elsewhere()
    other = rooms.hub("hub-c")
    other.vouch(client.flow.cid, epoch, client.flow.secret)
    assert other.only(RST).code == Reason.RESUME_DENIED
    assert client.flow.info.peer is hub.peer and client.flow.info.epoch == 5


@pytest.mark.parametrize("newest", [2**52, 2**53, 2**62 - 1])
def test_an_owner_that_tells_of_an_epoch_beyond_reason_is_not_asked_under_it(newest):
    rooms, client, hub = elsewhere()
    hub.send(DETACH, cid=client.flow.cid, epoch=5, seq=newest, code=Reason.STALE_EPOCH)
    assert hub.taken() == [] and client.flow.info.epoch == 5


def test_an_owner_that_vouches_for_nobody_loses_its_link():
    _, client, hub = elsewhere()
    hub.send(RESUME, cid=client.flow.cid, epoch=5, payload=client.flow.secret + b"{}")
    assert hub.link.closed and client.reason is None


def test_a_former_owner_is_told_the_newest_epoch():
    """Rule 4, from the flow itself."""
    rooms, client, hub = elsewhere()
    other = rooms.hub("hub-c")
    other.vouch(client.flow.cid, 4, client.flow.secret)
    told = other.only(DETACH)
    assert (told.code, told.epoch, told.seq) == (Reason.STALE_EPOCH, 4, 5)
    assert client.flow.info.peer is hub.peer


def test_two_hubs_do_not_own_the_agent_under_one_epoch():
    rooms, client, hub = elsewhere()
    other = rooms.hub("hub-c")
    other.vouch(client.flow.cid, 5, client.flow.secret)
    assert other.only(DETACH).code == Reason.STALE_EPOCH and client.flow.info.peer is hub.peer


@pytest.mark.parametrize("known", ["by the view", "because the agent is here"])
def test_a_later_epoch_that_is_known_here_counts_against_the_one_who_asks(known):
    """Rule 4, from what we know of the agent."""
    rooms, client, hub = elsewhere()
    if known == "by the view":
        rooms.elsewhere(owner="hub-c", epoch=8)
    else:
        Agent(rooms, identity("site")).claim(last_epoch=7)
        rooms.registry.view.drop("/site")
    hub.taken()
    hub.vouch(client.flow.cid, 6, client.flow.secret)
    told = hub.only(DETACH)
    assert (told.code, told.seq) == (Reason.STALE_EPOCH, 8)


def test_an_owner_that_asks_for_what_ended_hears_that_there_is_no_such_flow():
    _, client, hub = elsewhere()
    client.flow.reset(Reason.CLIENT_RESET)
    hub.taken()
    hub.vouch(client.flow.cid, 5, client.flow.secret)
    assert hub.only(RST).code == Reason.UNKNOWN_FLOW


# the owner knows a later epoch than we said


def test_a_flow_without_a_way_is_asked_for_under_the_epoch_that_its_owner_names():
    _, client, hub = elsewhere()
    hub.send(DETACH, cid=client.flow.cid, epoch=5, code=Reason.STALE_EPOCH, seq=7)
    asked = hub.only(RESUME)
    assert (asked.cid, asked.epoch) == (client.flow.cid, 7) and client.flow.info.epoch == 7


def test_an_epoch_that_is_no_news_moves_no_flow():
    _, client, hub = elsewhere()
    hub.send(DETACH, cid=client.flow.cid, epoch=5, code=Reason.STALE_EPOCH, seq=5)
    assert hub.taken() == [] and client.flow.info.epoch == 5
