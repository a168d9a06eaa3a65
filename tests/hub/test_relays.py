"""Other hubs' flows to agents of ours: who may ask for one, and who is told what when a side is lost."""

from __future__ import annotations

import pytest

from hub.far import Agent, OtherHub
from hub.rooms import NOW, Rooms, identity
from ncfast._frames import FrameType
from ncfast.core.errors import Reason
from ncfast.core.messages import Vouch
from ncfast.core.opening import PACKED, Opening
from ncfast.hub.relays import LAST_SECOND
from ncfast.observe.readiness import State

OPEN, OPEN_ACK, RESUME, RESUME_ACK = FrameType.M_OPEN, FrameType.M_OPEN_ACK, FrameType.M_RESUME, FrameType.M_RESUME_ACK
RST, DETACH, DATA = FrameType.M_RST, FrameType.M_DETACH, FrameType.M_DATA
SECRET = b"s" * 16  # what `OtherHub.seek` shows


def owner(*connectors: str, **options) -> tuple[Rooms, OtherHub, Agent]:
    """We own the agent `site` under epoch 5; clients come to `hub`."""
    rooms = Rooms("active", **options)
    hub = rooms.hub()
    return rooms, hub, Agent(rooms, identity("site", *connectors)).claim(last_epoch=4)


def relayed(**options) -> tuple[Rooms, OtherHub, Agent, bytes]:
    """A client's flow that the agent has accepted."""
    rooms, hub, agent = owner(**options)
    cid = hub.cid()
    hub.open(cid, 5)
    agent.accept(agent.only(OPEN))
    hub.only(OPEN_ACK)
    return rooms, hub, agent, cid


# who may open


def test_an_open_goes_to_the_agent_and_its_answer_back():
    rooms, hub, agent = owner()
    hub.open(hub.cid(), 5)
    assert len(rooms.pending) == 1
    opened = agent.only(OPEN)
    agent.accept(opened)
    assert hub.only(OPEN_ACK).cid == opened.cid == hub.cid()
    assert len(rooms.pending) == 0 and rooms.ground.stats.relays_opened == 1


@pytest.mark.parametrize("reads", [False, True], ids=["reads JSON", "reads packed"])
@pytest.mark.parametrize("packed", [False, True], ids=["JSON comes", "packed comes"])
def test_an_open_is_passed_on_as_it_is_to_who_reads_it(packed, reads):
    rooms = Rooms("active")
    hub = rooms.hub()
    agent = Agent(rooms, identity("site")).claim(last_epoch=4, features=["packed_open"] if reads else [])
    said = hub.open(hub.cid(), 5, packed=packed)
    passed = agent.only(OPEN).payload
    assert Opening.unpack(passed) == Opening.unpack(said)
    assert passed == said or (packed and not reads and not passed.startswith(PACKED))


@pytest.mark.parametrize("body", [b"\x01", b"{}"])
def test_a_malformed_open_ends_the_link(body):
    rooms, hub, agent = owner()
    hub.send(OPEN, cid=hub.cid(), epoch=5, limit=1 << 16, payload=body)
    assert hub.link.closed and agent.taken() == []


@pytest.mark.parametrize(
    ("epoch", "reason"), [(4, Reason.STALE_EPOCH), (6, Reason.NOT_OWNER)], ids=["that is over", "that we do not have"]
)
def test_an_open_under_an_epoch(epoch, reason):
    rooms, hub, agent = owner()
    hub.open(hub.cid(), epoch)
    assert hub.only(RST).code == reason and agent.taken() == []
    assert rooms.ground.stats.epochs_refused == (epoch < 5) and rooms.relays.by_cid == {}


def test_an_open_of_another_hubs_cid_is_refused():
    rooms, hub, agent = owner()
    other = rooms.hub("hub-c")
    hub.open(other.cid(), 5)
    assert hub.only(RST).code == Reason.SCOPE_DENIED and agent.taken() == []


def test_an_open_for_no_agent_in_particular_is_refused():
    _, hub, agent = owner()
    hub.open(hub.cid(), 5, agent="")
    assert hub.only(RST).code == Reason.SCOPE_DENIED and agent.taken() == []


@pytest.mark.parametrize("now", [False, True], ids=["never allowed", "allowed no longer"])
def test_an_open_beyond_the_agents_scope_is_refused(now):
    _, hub, agent = owner() if now else owner("other")
    if now:
        agent.session.identity = identity("site", "other")
    hub.open(hub.cid(), 5)
    assert hub.only(RST).code == Reason.SCOPE_DENIED and agent.taken() == []


@pytest.mark.parametrize("why", ["not announced", "leaving", "token over"])
def test_an_open_for_what_the_agent_does_not_serve_is_refused(why):
    rooms, hub, agent = owner()
    if why == "not announced":
        agent.announce("ssh")
    elif why == "leaving":
        agent.send(FrameType.GOAWAY, code=Reason.DRAINING)
    else:
        rooms.wall.now = NOW + 3600
    hub.open(hub.cid(), 5)
    # clients of an agent that is about to end are held for its next process
    refused = Reason.NOT_OWNER if why == "leaving" else Reason.NO_SUCH_CONNECTOR
    assert hub.only(RST).code == refused and agent.taken() == []


def test_an_open_that_the_agent_may_have_accepted_is_its_own_to_answer():
    """The origin opens a flow elsewhere that is refused here, and a target would see it twice."""
    _, hub, agent, cid = relayed()
    agent.announce("ssh")
    hub.open(cid, 5)  # it has not heard the answer
    assert agent.only(OPEN).cid == cid and hub.types() == []


@pytest.mark.parametrize("why", ["another agent", "another tenant", "standby", "draining"])
def test_a_hub_that_does_not_own_the_agent_says_so_and_passes_nothing_on(why):
    """One hop: also if a third hub owns it."""
    rooms, hub, agent = owner()
    third = rooms.hub("hub-c")
    rooms.elsewhere("two", owner="hub-c", epoch=5)
    if why == "standby":
        standby = Agent(rooms, identity("two"))
        standby.hello("ldap", standby=True)
        standby.taken()
    elif why == "draining":
        rooms.ground.readiness.move(State.DRAINING)
    asked = "site" if why in ("another tenant", "draining") else "two"
    fields = {"tenant": "acme"} if why == "another tenant" else {}
    hub.open(hub.cid(), 5, agent=asked, **fields)
    assert hub.only(RST).code == Reason.NOT_OWNER
    assert agent.taken() == third.taken() == [] and rooms.relays.by_cid == {}


@pytest.mark.parametrize("full", ["opens", "flows", "memory"])
def test_an_open_too_many_is_refused(full):
    limits = {"opens": {"pending_opens_per_agent": 1}, "flows": {"max_flows": 1}, "memory": {}}[full]
    rooms, hub, agent = owner(limits=limits)
    if full == "memory":
        rooms.ground.context.budget.resize(-1)
    else:
        hub.open(hub.cid(1), 5)
        agent.only(OPEN)
    hub.open(hub.cid(2), 5)
    assert hub.only(RST).code == Reason.OVERLOADED and agent.taken() == []


def test_an_open_that_comes_twice_is_one_relay():
    rooms, hub, agent = owner(limits={"max_flows": 1})
    hub.open(hub.cid(), 5)
    hub.open(hub.cid(), 5)
    assert agent.types() == [OPEN, OPEN] and len(rooms.pending) == 1 and rooms.ground.stats.relays_opened == 1


# the agent's tunnel is lost: the origin is told by M_DETACH, the relay ends


def test_the_agents_tunnel_is_lost():
    rooms, hub, agent, cid = relayed()
    agent.lose()
    told = hub.only(DETACH)
    assert (told.cid, told.epoch, told.code) == (cid, 5, Reason.LINK_LOST)
    assert rooms.relays.by_cid == {} and rooms.ground.stats.relays_ended == 1


def test_an_open_in_progress_is_pending_no_more_when_the_tunnel_is_lost():
    rooms, hub, agent = owner()
    hub.open(hub.cid(), 5)
    agent.lose()
    assert len(rooms.pending) == 0


def test_the_agent_asks_anew_where_it_has_claimed_and_we_vouch_for_it():
    rooms, hub, agent, cid = relayed()
    agent.lose()
    hub.taken()
    again = rooms.agent()
    again.resume(cid, SECRET)
    asked = hub.only(RESUME)
    assert (asked.cid, asked.epoch, asked.payload[:16]) == (cid, 6, SECRET)
    assert Vouch.unpack(asked.payload[16:]) == Vouch(agent="site", instance=again.process)
    hub.send(RESUME_ACK, cid=cid, epoch=6, limit=1 << 20)
    assert again.types() == [RESUME_ACK] and rooms.ground.stats.relays_resumed == 1


def test_an_agent_that_claims_before_its_old_tunnel_is_seen_to_end_takes_its_flows_along():
    rooms, hub, agent, cid = relayed()
    old = rooms.relays.by_cid[cid]
    again = Agent(rooms, identity("site"))
    rooms.claims.ended = lambda *told, **more: None  # the news of the old tunnel's end is late
    again.claim()
    again.resume(cid, SECRET)
    relay = rooms.relays.by_cid[cid]
    assert relay is not old and relay.tunnel is again.link and relay.mesh is hub.link


# the mesh link is lost: the agent is told by M_DETACH, the relay waits


def test_the_mesh_link_is_lost():
    rooms, hub, agent, cid = relayed()
    hub.lose()
    told = agent.only(DETACH)
    assert (told.cid, told.code) == (cid, Reason.LINK_LOST)
    relay = rooms.relays.by_cid[cid]
    assert relay.mesh is None and relay.info.away_since == rooms.ground.clock()


def test_the_origin_asks_again_and_the_relay_goes_on():
    rooms, hub, agent, cid = relayed()
    relay = rooms.relays.by_cid[cid]
    hub.lose()
    agent.taken()
    hub = rooms.hub()
    hub.seek(cid, 5)
    asked = agent.only(RESUME)
    assert (asked.cid, asked.payload) == (cid, SECRET), "and nothing of what hubs say to each other"
    assert rooms.relays.by_cid[cid] is relay and relay.mesh is hub.link and relay.info.away_since < 0
    rooms.wait(100.0)
    rooms.relays.tick(rooms.ground.clock())
    assert rooms.relays.by_cid == {cid: relay}


def test_what_the_agent_asked_before_it_heard_of_the_loss_does_not_bring_the_flow_back():
    """It waits by now (8.18), and would drop the answer to that; the origin would wait for it for ever."""
    rooms, hub, agent, cid = relayed()
    hub.lose()
    assert agent.only(DETACH).code == Reason.LINK_LOST
    hub = rooms.hub()
    agent.resume(cid, SECRET)  # has crossed M_DETACH
    told = agent.only(DETACH)
    assert (told.cid, told.epoch, told.code) == (cid, 5, Reason.LINK_LOST) and hub.taken() == []
    hub.seek(cid, 5)
    assert agent.only(RESUME).cid == cid
    agent.resume(cid, SECRET)  # frames were lost
    assert hub.only(RESUME).cid == cid and len(rooms.relays.by_cid) == 1


def test_nor_does_what_it_asks_while_there_is_no_link():
    rooms, hub, agent, cid = relayed()
    hub.lose()
    agent.taken()
    agent.resume(cid, SECRET)
    assert agent.only(DETACH).code == Reason.LINK_LOST
    assert rooms.relays.by_cid[cid].mesh is None


def test_an_open_that_comes_again_is_answered_by_the_agents_asking():
    """The agent has accepted it, of which the origin has not heard: no open is in progress any more."""
    rooms, hub, agent, cid = relayed()
    rooms.relays.by_cid[cid].forget()  # by an owner that has not heard of it either
    hub.open(cid, 5)
    assert agent.only(OPEN).cid == cid and len(rooms.pending) == 1
    agent.resume(cid, SECRET)
    assert hub.only(RESUME).cid == cid and len(rooms.pending) == 0


def test_the_relay_ends_with_the_grace_without_a_word_while_the_origin_is_known_to_live():
    rooms, hub, agent, cid = relayed()
    hub.lose()
    agent.taken()
    grace = rooms.ground.config.flow.grace_sec
    rooms.wait(grace - LAST_SECOND)
    rooms.relays.tick(rooms.ground.clock())
    assert list(rooms.relays.by_cid) == [cid]
    rooms.wait(LAST_SECOND)
    rooms.relays.tick(rooms.ground.clock())
    assert rooms.relays.by_cid == {} and agent.taken() == []


# the origin itself is lost: the agent is told by M_RST, the relay ends


def test_the_origin_has_come_back_as_another_process():
    rooms, hub, agent, cid = relayed()
    rooms.hub(instance=b"reborn..")
    assert agent.only(DETACH).cid == cid
    rooms.relays.tick(rooms.ground.clock())
    told = agent.only(RST)
    assert (told.cid, told.code) == (cid, Reason.ORIGIN_LOST)
    assert rooms.relays.by_cid == {} and rooms.ground.stats.relays_ended == 1


def test_the_origin_is_not_in_the_registry_any_more_and_the_agents_grace_nears_its_end():
    rooms, hub, agent, cid = relayed()
    hub.lose()
    agent.taken()
    rooms.registry.view.set_replicas([(rooms.registry.replica, 0, 0)])
    rooms.wait(rooms.ground.config.flow.grace_sec - LAST_SECOND - 0.1)
    rooms.relays.tick(rooms.ground.clock())
    assert agent.taken() == [] and list(rooms.relays.by_cid) == [cid]
    rooms.wait(0.2)
    rooms.relays.tick(rooms.ground.clock())
    assert agent.only(RST).code == Reason.ORIGIN_LOST and rooms.relays.by_cid == {}


def test_an_agent_that_asks_for_a_flow_of_a_process_that_is_gone_hears_that():
    rooms, hub, agent, cid = relayed()
    agent.lose()
    rooms.hub(instance=b"reborn..")
    again = rooms.agent()
    again.resume(cid, SECRET)
    assert again.only(RST).code == Reason.ORIGIN_LOST


# who may resume


@pytest.mark.parametrize(
    ("epoch", "told"),
    [(4, (DETACH, Reason.STALE_EPOCH, 5)), (6, (DETACH, Reason.NOT_OWNER, 0))],
    ids=["old", "unknown"],
)
def test_a_resume_by_the_origin_under_an_epoch(epoch, told):
    rooms, hub, agent, cid = relayed()
    hub.lose()
    agent.taken()
    hub = rooms.hub()
    hub.seek(cid, epoch)
    (seen,) = hub.taken()
    assert (seen.type, seen.code, seen.seq) == told and agent.taken() == []
    assert rooms.relays.by_cid[cid].mesh is None


def test_a_resume_for_an_agent_of_somebody_else_lets_the_flow_wait_for_its_owner():
    rooms, hub, agent = owner()
    hub.seek(hub.cid(), 5, agent="two")
    assert hub.only(DETACH).code == Reason.NOT_OWNER and agent.taken() == []


def test_a_resume_of_another_hubs_cid_is_denied():
    rooms, hub, agent, cid = relayed()
    other = rooms.hub("hub-c")
    other.seek(cid, 5)
    assert other.only(RST).code == Reason.RESUME_DENIED and rooms.relays.by_cid[cid].mesh is hub.link


def test_a_resume_beyond_the_agents_scope_is_denied():
    rooms, hub, agent, cid = relayed()
    agent.session.identity = identity("site", "other")
    hub.seek(cid, 5)
    assert hub.only(RST).code == Reason.SCOPE_DENIED and agent.taken() == []


def test_another_agent_here_does_not_get_the_relay_of_a_flow():
    rooms, hub, agent, cid = relayed()
    thief = rooms.agent("thief")
    thief.resume(cid, SECRET)
    assert thief.only(DETACH).code == Reason.LINK_LOST and hub.taken() == []
    assert rooms.relays.by_cid[cid].tunnel is agent.link


def test_an_agent_that_asks_for_more_flows_than_there_may_be_waits():
    rooms, hub, agent, cid = relayed(limits={"max_flows": 1})
    agent.resume(hub.cid(2), SECRET)
    told = agent.only(DETACH)
    assert told.code == Reason.OVERLOADED and list(rooms.relays.by_cid) == [cid]
