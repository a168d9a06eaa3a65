"""How an agent comes to be ours, and is lost: the rules of `ncfast.hub.claims`."""

from __future__ import annotations

import pytest

from hub.far import OTHER_PROCESS, PROCESS, Agent
from hub.rooms import Rooms, identity, listener
from hub.seam import Gate
from ncfast._frames import FrameType
from ncfast.core.errors import Reason
from ncfast.core.messages import HelloAck
from ncfast.hub import claims
from ncfast.hub.session import AgentSession
from ncfast.registry import AgentEntry

HELLO_ACK, OPEN, RST, DETACH = FrameType.HELLO_ACK, FrameType.M_OPEN, FrameType.M_RST, FrameType.M_DETACH
KEY = "/site"


@pytest.fixture
def reasons(monkeypatch) -> list[tuple[str, Reason]]:
    """Which tunnels have ended, and why."""
    seen: list[tuple[str, Reason]] = []
    ended = claims.Claims.ended

    def noted(self, session, reason, *, owned):
        seen.append((session.agent_id, reason))
        ended(self, session, reason, owned=owned)

    monkeypatch.setattr(claims.Claims, "ended", noted)
    return seen


def slow(rooms: Rooms, who: str = "site", **hello) -> tuple[Agent, Gate]:
    """A claim whose answer waits for a gate."""
    gate = rooms.registry.gate = Gate()
    agent = Agent(rooms, identity(who))
    agent.hello("ldap", **hello)
    assert agent.taken() == [] and not agent.session.owns
    rooms.registry.gate = Gate(open=True)
    return agent, gate


def swing(rooms: Rooms, gate: Gate) -> None:
    gate.swing()
    rooms.run()
    assert not rooms.net.failed


def owned(rooms: Rooms) -> tuple[str, int] | None:
    entry = rooms.registry.view.agent(KEY)
    return (entry.owner, entry.epoch) if entry is not None else None


# rule 1: the newest claim wins


def test_a_claim_supersedes_the_session_that_stands(reasons):
    rooms = Rooms()
    first = rooms.agent()
    second = rooms.agent()
    assert reasons == [("site", Reason.SUPERSEDED)] and first.link.closed
    assert rooms.sessions.current(KEY) is second.session and owned(rooms) == ("hub", 2)


def test_of_two_claims_at_once_the_one_with_the_older_epoch_goes(reasons):
    rooms = Rooms()
    first, gate = slow(rooms)
    second = rooms.agent()
    assert second.session.epoch == 2
    swing(rooms, gate)
    assert reasons == [("site", Reason.SUPERSEDED)] and first.link.closed and not second.link.closed
    assert rooms.sessions.current(KEY) is second.session and owned(rooms) == ("hub", 2)


def test_an_epoch_is_above_what_the_agent_remembers():
    rooms = Rooms()
    agent = Agent(rooms, identity("site"))
    agent.hello("ldap", last_epoch=41)
    assert HelloAck.unpack(agent.only(HELLO_ACK).payload).epoch == agent.link.epoch == 42


# rule 2: a claim whose tunnel has ended meanwhile owns nothing


def test_the_epoch_of_a_claim_whose_tunnel_has_ended_is_given_back():
    rooms = Rooms()
    agent, gate = slow(rooms)
    assert owned(rooms) == ("hub", 1)
    agent.lose()
    swing(rooms, gate)
    assert owned(rooms) is None and rooms.sessions.current(KEY) is None and not agent.session.owns


def test_a_session_whose_entry_was_taken_by_such_a_claim_goes_too(reasons):
    rooms = Rooms()
    stands = rooms.agent()
    agent, gate = slow(rooms)
    agent.lose()
    reasons.clear()
    swing(rooms, gate)
    assert reasons == [("site", Reason.GOING_AWAY)] and stands.link.closed
    assert owned(rooms) is None and rooms.sessions.current(KEY) is None


def test_a_session_that_has_claimed_after_it_stays(reasons):
    rooms = Rooms()
    agent, gate = slow(rooms)
    stands = rooms.agent()
    agent.lose()
    reasons.clear()
    swing(rooms, gate)
    assert reasons == [] and rooms.sessions.current(KEY) is stands.session and owned(rooms) == ("hub", 2)


# rule 3: a later owner that the registry knows ends a tunnel of ours


@pytest.mark.parametrize(
    ("instance", "told"),
    [
        (OTHER_PROCESS, Reason.SUPERSEDED),
        # its own claim, given up by a hub and carried out late by a registry that was frozen
        (PROCESS, Reason.GOING_AWAY),
        ("", Reason.GOING_AWAY),  # that claim is released again already
    ],
    ids=["another process", "the same process", "nobody"],
)
def test_only_another_process_makes_an_agent_take_itself_for_one_of_two(reasons, instance, told):
    rooms = Rooms()
    agent = Agent(rooms, identity("site")).claim(last_epoch=4)
    rooms.claims.fenced(AgentEntry(KEY, "hub-b", 5, instance))
    rooms.claims.fenced(AgentEntry("/else", "hub-b", 7, instance))
    assert reasons == [] and not agent.link.closed
    rooms.claims.fenced(AgentEntry(KEY, "hub-b", 7, instance))
    rooms.run()
    assert reasons == [("site", told)] and rooms.ground.stats.takeovers["fenced"] == 1


# rule 4: who comes releases those who wait, who leaves as the last leaves them in hope


def test_whoever_comes_new_to_a_connector_releases_those_who_wait_for_it():
    rooms = Rooms()
    agent = rooms.agent("site", "ssh")
    rooms.agent("gone").lose()
    client = rooms.client()
    assert agent.taken() == [] and client.reason is None
    agent.announce("ssh", "ldap")
    assert agent.only(OPEN).cid == client.flow.cid


@pytest.mark.parametrize("how", ["the tunnel is lost", "the agent drains"])
def test_whoever_was_the_last_of_a_connector_leaves_its_clients_in_hope(how):
    rooms = Rooms()
    agent, spare = rooms.agent(), rooms.agent("spare")
    for one in (agent, spare):
        if how == "the tunnel is lost":
            one.lose()
        else:
            one.send(FrameType.GOAWAY, code=Reason.DRAINING)
    client = rooms.client()
    assert client.reason is None and client.flow in rooms.router.hold.flows()
    assert rooms.client(listener(connector="ssh")).reason is Reason.NO_AGENT


# what sessions tell


def test_what_an_agent_serves_and_that_it_leaves_is_published():
    rooms = Rooms()
    agent = rooms.agent()
    agent.announce("ldap", "ssh")
    assert rooms.registry.view.agent(KEY).connectors == {"ldap", "ssh"}
    agent.send(FrameType.GOAWAY, code=Reason.DRAINING)
    assert rooms.registry.view.agent(KEY).draining
    agent.lose()
    assert owned(rooms) is None


def test_a_session_that_is_not_the_agents_own_any_more_publishes_nothing():
    rooms = Rooms()
    agent = rooms.agent()
    rooms.sessions.drop(agent.session)
    agent.announce("ssh")
    assert rooms.registry.view.agent(KEY).connectors == {"ldap"}


def test_a_standby_that_ends_takes_nothing_from_the_owner():
    rooms = Rooms()
    owner = rooms.agent()
    standby = Agent(rooms, identity("site"))
    standby.hello("ldap", standby=True)
    standby.lose()
    assert rooms.sessions.current(KEY) is owner.session and owned(rooms) == ("hub", 1)
    rooms.client()
    owner.only(OPEN)


@pytest.mark.parametrize("mode", ["off", "active"])
def test_an_agent_that_asks_for_a_flow_that_is_not_ours(mode):
    """It is another hub's, if there are others."""
    rooms = Rooms(mode)
    agent = rooms.agent()
    agent.resume(b"hub-b..." + bytes(8), bytes(16))
    (told,) = agent.taken()
    assert (told.type, told.code) == ((DETACH, Reason.LINK_LOST) if mode == "active" else (RST, Reason.UNKNOWN_FLOW))


def test_each_flow_that_an_agent_asks_for_gives_it_more_time():
    rooms = Rooms()
    first = rooms.agent()
    client = rooms.client()
    first.accept(first.only(OPEN))
    first.lose()
    agent = rooms.agent()
    before = agent.session.resuming_until
    rooms.wait(1.0)
    agent.resume(client.flow.cid, client.flow.secret)
    assert agent.session.resuming_until == before + 1.0


def test_an_agent_is_awaited_as_long_as_flows_wait_for_it():
    rooms = Rooms()
    agent = rooms.agent()
    assert not rooms.claims.awaited(identity("site"))
    client = rooms.client()
    agent.lose()
    assert rooms.claims.awaited(identity("site")) and not rooms.claims.awaited(identity("site", tenant="acme"))
    client.flow.reset(Reason.CLIENT_RESET)
    assert not rooms.claims.awaited(identity("site"))


def test_ends_are_counted_and_those_that_an_agent_is_to_blame_for_twice():
    rooms = Rooms()
    rooms.agent().lose()
    rooms.agent().hello("ldap")
    stats = rooms.ground.stats
    assert stats.tunnels_closed == {"connection_lost": 1, "protocol_error": 1}
    assert stats.protocol_errors == {"protocol_error": 1} and len(rooms.sessions) == 0


def test_one_sessions_defect_does_not_stop_the_clocks_of_the_others(monkeypatch):
    rooms = Rooms()
    broken, sound = rooms.agent("broken"), Agent(rooms, identity("sound"))
    monkeypatch.setattr(broken.session, "tick", lambda now: 1 / 0)
    rooms.wait(rooms.ground.config.edge.handshake_timeout_sec)
    rooms.claims.tick()
    assert sound.link.closed and rooms.ground.stats.tunnels_closed == {"handshake_timeout": 1}


def test_thousands_of_tunnels_are_ticked_a_few_in_each_turn(monkeypatch):
    rooms = Rooms()
    sessions = [rooms.agent(f"site-{number}").session for number in range(3 * claims.TICK_SLICE)]
    ticked = []
    monkeypatch.setattr(AgentSession, "tick", lambda session, now: ticked.append(session))
    rooms.claims.tick()
    counts = [0, len(ticked)]
    sessions[-1].link.fail(Reason.GOING_AWAY, "meanwhile")
    rooms.claims.tick()  # while a round is not over no other begins
    while rooms.net.turns.run():
        counts.append(len(ticked))
    assert max(b - a for a, b in zip(counts, counts[1:], strict=False)) == claims.TICK_SLICE
    assert ticked == sessions[:-1]
    rooms.claims.tick()
    rooms.run()
    assert ticked == 2 * sessions[:-1]


# rule 5: an epoch that no registry can have granted


@pytest.mark.parametrize("standby", [False, True])
@pytest.mark.parametrize("beyond", ["by a day", "by all that HELLO can say"])
def test_an_agent_that_says_an_epoch_beyond_reason_claims_nothing(reasons, beyond, standby):
    rooms = Rooms()
    honest = rooms.agent()
    epoch = honest.session.epoch
    last = rooms.registry.claimable() + 86_400_000_000 if beyond == "by a day" else 2**53 - 1
    liar = Agent(rooms, identity(), process=OTHER_PROCESS)
    if standby:
        liar.hello("ldap", standby=True, last_epoch=last)
        assert liar.only(HELLO_ACK) and liar.session.standing
    liar.hello("ldap", last_epoch=last)
    assert reasons == [("site", Reason.PROTOCOL_ERROR)]
    assert honest.session.owns and owned(rooms) == (rooms.ground.replica_id, epoch)
    assert rooms.agent().session.epoch == epoch + 1


def test_an_agent_that_says_the_largest_epoch_that_is_believed_leaves_room_for_the_next(reasons):
    rooms = Rooms()
    liar = Agent(rooms, identity(), process=OTHER_PROCESS).claim(last_epoch=rooms.registry.claimable())
    rooms.wall.now += 0.001
    honest = Agent(rooms, identity()).claim(last_epoch=liar.session.epoch)
    assert honest.session.epoch == liar.session.epoch + 1 <= rooms.registry.claimable()
    assert reasons == [("site", Reason.SUPERSEDED)]
