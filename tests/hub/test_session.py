"""The hub's side of one tunnel: its states, what may come in each, and tokens that are renewed while it stands."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from support.tokens import SECRET, genuine

from hub.far import OTHER_PROCESS, Agent
from hub.rooms import NOW, Rooms, identity
from hub.seam import Gate
from ncfast._frames import FrameType
from ncfast.auth import ClientCertificate, Identity, thumbprint
from ncfast.auth.certificate import confirmation
from ncfast.config.hub import Jwt
from ncfast.core.errors import LocalError, Reason
from ncfast.core.messages import HelloAck
from ncfast.hub.latest import PAUSE
from ncfast.hub.session import RESUME_TIME, AgentSession, SessionState
from ncfast.hub.tokens import Tokens
from ncfast.observe.readiness import State

S = SessionState
HELLO_ACK, AUTH, GOAWAY = FrameType.HELLO_ACK, FrameType.AUTH, FrameType.GOAWAY


class Desk:
    """Writes down what the session tells; `gate` is the registry's answer to a claim."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.gate = Gate(open=True)
        self.epoch = 7
        self.fails = False

    async def claim(self, session: AgentSession, hello: Any) -> None:
        self.told.append("claim")
        await self.gate
        if self.fails:
            raise RuntimeError("a defect")
        if not session.link.closed:
            session.granted(self.epoch)

    def granted(self, session: AgentSession) -> None:
        self.told.append("granted")

    def announced(self, session: AgentSession) -> None:
        self.told.append("announced")

    def leaving(self, session: AgentSession) -> None:
        self.told.append("leaving")

    def resume(self, session: AgentSession, cid: bytes, secret: bytes, ack: int, limit: int) -> bool:
        self.told.append("resume")
        return True

    def ended(self, session: AgentSession, reason: Reason, *, owned: bool) -> None:
        self.told.append(f"ended as owner: {reason.label}" if owned else f"ended: {reason.label}")


class SlowTokens(Tokens):
    """Judges when the gate opens."""

    gate: Gate

    async def verify(self, token: str, certificate: ClientCertificate | None = None) -> Identity:
        await self.gate
        return await super().verify(token, certificate)


@pytest.fixture
def rooms(tmp_path) -> Rooms:
    rooms = Rooms()
    key_file = tmp_path / "key"
    key_file.write_bytes(SECRET)
    jwt = Jwt.model_validate({"key_file": str(key_file), "expiry_grace_sec": 60})
    rooms.tokens = SlowTokens(jwt, rooms.net, rooms.wall)
    rooms.tokens.gate = Gate(open=True)
    return rooms


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def agent(rooms: Rooms, desk: Desk) -> Agent:
    return Agent(rooms, identity("site", "ldap", "ssh"), desk=desk)


def lead(agent: Agent, desk: Desk, state: SessionState) -> None:
    """Brings the session into a state by what an agent says."""
    if state in (S.STANDBY, S.TAKING_OVER):
        agent.hello("ldap", standby=True)
    desk.gate.open = state not in (S.CLAIMING, S.TAKING_OVER)
    if state in (S.CLAIMING, S.TAKING_OVER, S.OWNER):
        agent.hello("ldap")
    if state is S.ENDED:
        agent.lose()
    agent.taken()
    assert agent.session.state is state


# the table of states

EDGES = {
    (S.GREETING, S.STANDBY),
    (S.GREETING, S.CLAIMING),
    (S.STANDBY, S.TAKING_OVER),
    (S.CLAIMING, S.OWNER),
    (S.TAKING_OVER, S.OWNER),
    *((state, S.ENDED) for state in S if state is not S.ENDED),
}


@pytest.mark.parametrize(("before", "after"), [*itertools.product(S, S)], ids=lambda state: state.value)
def test_the_table_has_these_edges_and_no_others(agent, before, after):
    agent.session.state = before
    if (before, after) in EDGES:
        agent.session._move(after)
        assert agent.session.state is after
    else:
        with pytest.raises(LocalError):
            agent.session._move(after)
        assert agent.session.state is before


@pytest.mark.parametrize("state", S, ids=lambda state: state.value)
def test_the_links_end_leads_from_anywhere_to_ended_and_the_desk_is_told_once(agent, desk, state):
    lead(agent, desk, state)
    agent.lose()
    assert agent.session.state is S.ENDED
    ends = [one for one in desk.told if one.startswith("ended")]
    assert ends == [f"ended{' as owner' if state is S.OWNER else ''}: connection_lost"]


@pytest.mark.parametrize(
    ("state", "owns", "standing", "known"),
    [
        (S.GREETING, False, False, False),
        (S.STANDBY, False, True, True),
        (S.CLAIMING, False, False, False),
        (S.TAKING_OVER, False, True, True),
        (S.OWNER, True, False, True),
        (S.ENDED, False, False, False),
    ],
    ids=lambda value: value.value if isinstance(value, S) else None,
)
def test_who_owns_who_stands_by_and_who_is_known(agent, desk, state, owns, standing, known):
    lead(agent, desk, state)
    session = agent.session
    assert (session.owns, session.standing, session.known) == (owns, standing, known)
    assert session.serves(None, "ldap") is owns


def test_a_claim_is_answered_with_its_epoch(agent, desk, rooms):
    agent.hello("ldap")
    ack = HelloAck.unpack(agent.only(HELLO_ACK).payload)
    assert (ack.epoch, ack.replica_id, ack.cluster) == (7, "hub", False)
    assert desk.told == ["claim", "granted"] and agent.link.epoch == 7
    assert agent.session.resuming_until == rooms.ground.clock() + RESUME_TIME


def test_a_standby_owns_nothing_until_it_claims_on_the_same_tunnel(agent, desk):
    agent.hello("ldap", standby=True)
    assert HelloAck.unpack(agent.only(HELLO_ACK).payload).epoch == 0 and desk.told == []
    agent.hello("ldap")
    assert HelloAck.unpack(agent.only(HELLO_ACK).payload).epoch == 7 and desk.told == ["claim", "granted"]


def test_a_claim_that_fails_for_a_defect_ends_the_tunnel(agent, desk, rooms):
    desk.fails = True
    agent.hello("ldap")
    assert desk.told == ["claim", "ended: internal"] and agent.link.closed
    assert [type(one) for one in rooms.net.failed] == [RuntimeError]


# what may come in which state


@pytest.mark.parametrize("state", [S.CLAIMING, S.TAKING_OVER, S.OWNER], ids=lambda state: state.value)
def test_no_further_hello_is_taken(agent, desk, state):
    lead(agent, desk, state)
    agent.hello("ldap")
    assert agent.link.closed and desk.told[-1].endswith("protocol_error") and desk.told.count("claim") == 1


@pytest.mark.parametrize("wrong", [{"standby": True}, {"instance": OTHER_PROCESS}], ids=["standby", "process"])
def test_a_second_hello_of_a_standby_claims_as_the_same_process(agent, desk, wrong):
    lead(agent, desk, S.STANDBY)
    agent.hello("ldap", **wrong)
    assert desk.told == ["ended: protocol_error"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [({"agent_id": "other"}, "unauthorized"), ({"version": 2}, "version"), ({"instance": "x"}, "protocol_error")]
    + [({"features": ["No feature"]}, "protocol_error")],
    ids=["name", "version", "malformed", "feature"],
)
def test_a_hello_that_cannot_be_taken_ends_the_tunnel(agent, desk, wrong, reason):
    agent.hello("ldap", **wrong)
    assert desk.told == [f"ended: {reason}"] and agent.session.state is S.ENDED


@pytest.mark.parametrize("state", [S.GREETING, S.CLAIMING], ids=lambda state: state.value)
@pytest.mark.parametrize("type", [FrameType.ANNOUNCE, FrameType.MOVE, AUTH, GOAWAY], ids=lambda type: type.name)
def test_nothing_comes_before_hello_is_answered(agent, desk, state, type):
    lead(agent, desk, state)
    agent.send(type, payload=b'{"connectors":["ssh"]}' if type is FrameType.ANNOUNCE else b"")
    assert agent.link.closed and desk.told[-1] == "ended: protocol_error"


@pytest.mark.parametrize("state", [S.GREETING, S.STANDBY, S.CLAIMING, S.TAKING_OVER], ids=lambda state: state.value)
@pytest.mark.parametrize("type", [FrameType.M_RESUME, FrameType.MOVE], ids=lambda type: type.name)
def test_who_does_not_own_the_agent_is_asked_for_no_flow_and_no_move(agent, desk, state, type):
    lead(agent, desk, state)
    agent.send(type, payload=bytes(16) if type is FrameType.M_RESUME else b'{"replica_id":"hub-b"}')
    assert "resume" not in desk.told and desk.told[-1] == "ended: protocol_error"


def test_an_owner_gets_flows_and_says_nothing_behind_the_secret(agent, desk):
    lead(agent, desk, S.OWNER)
    agent.resume(bytes(16), bytes(16))
    assert desk.told[-1] == "resume"
    agent.resume(bytes(16), bytes(16) + b"{}")
    assert desk.told[-1] == "ended as owner: protocol_error"


@pytest.mark.parametrize("type", [FrameType.M_OPEN, FrameType.HELLO_ACK], ids=lambda type: type.name)
def test_what_is_the_hubs_to_send_ends_the_tunnel(agent, desk, type):
    lead(agent, desk, S.OWNER)
    agent.send(type, epoch=7, cid=bytes(16))
    assert desk.told[-1] == "ended as owner: protocol_error"


# what it serves


def test_what_the_token_does_not_allow_is_not_served(agent, desk):
    lead(agent, desk, S.OWNER)
    agent.announce("ldap", "smtp")
    assert agent.session.connectors == {"ldap"} and desk.told[-1] == "announced"
    assert not agent.session.serves(None, "smtp") and not agent.link.closed


def test_a_session_serves_its_tenant_what_was_announced_until_it_leaves_or_its_token_ends(agent, desk, rooms):
    lead(agent, desk, S.OWNER)
    session = agent.session
    assert session.serves(None, "ldap") and not session.serves("acme", "ldap") and not session.serves(None, "ssh")
    rooms.wall.now = NOW + 3600
    assert not session.serves(None, "ldap")
    rooms.wall.now = NOW
    for _ in range(2):
        agent.send(GOAWAY, code=Reason.DRAINING)
    assert not session.serves(None, "ldap") and desk.told.count("leaving") == 1


def test_a_standby_that_leaves_takes_nothing_away(agent, desk):
    lead(agent, desk, S.STANDBY)
    agent.send(GOAWAY, code=Reason.DRAINING)
    assert agent.session.draining and desk.told == []


def test_whoever_comes_while_the_hub_drains_is_told_to_go(agent, desk, rooms):
    rooms.ground.readiness.move(State.DRAINING)
    agent.hello("ldap")
    assert agent.types() == [HELLO_ACK, GOAWAY]


def test_an_owner_alone_hears_that_the_mode_has_changed(agent, desk):
    lead(agent, desk, S.STANDBY)
    agent.session.tell_again()
    assert agent.taken() == []
    lead(agent, desk, S.OWNER)
    agent.session.tell_again()
    assert agent.types() == [HELLO_ACK]


def test_hello_ack_says_what_the_hub_is_configured_to(agent, desk, rooms):
    agent.hello("ldap")
    ack = HelloAck.unpack(agent.only(HELLO_ACK).payload)
    config = rooms.ground.config
    assert (ack.grace, ack.drain) == (config.flow.grace_sec, config.drain.timeout_sec)
    assert (ack.ping_timeout, ack.max_message) == (config.tunnel.ping_timeout_sec, config.tunnel.max_message_bytes)


@pytest.mark.parametrize(
    ("said", "moves", "packed_open"),
    [
        ({"features": []}, False, False),
        ({"features": [], "moves": True, "packed_open": True}, True, True),  # as before there were features
        ({"features": ["packed_open", "later_1"]}, False, True),
        ({"features": ["moves"]}, True, False),
    ],
    ids=str,
)
def test_what_an_agent_knows_is_used_alone(agent, desk, said, moves, packed_open):
    agent.hello("ldap", **said)
    assert (agent.session.moves, agent.session.packed_open) == (moves, packed_open)


# tokens


def refused(agent: Agent) -> list[str]:
    """As the latest HELLO_ACK has it."""
    acks = [frame for frame in agent.taken() if frame.type == HELLO_ACK]
    return json.loads(acks[-1].payload)["refused"]


def refresh(agent: Agent, **changes: Any) -> None:
    agent.send(AUTH, payload=genuine("HS256", **({"sub": "site"} | changes)).encode())


def test_a_fresh_token_brings_its_scope_and_its_time(agent, desk, rooms):
    lead(agent, desk, S.OWNER)
    agent.announce("ldap", "smtp")
    refresh(agent, connectors=["smtp"])
    assert agent.types() == [HELLO_ACK, HELLO_ACK, AUTH] and desk.told[-1] == "announced"
    assert agent.session.connectors == {"smtp"} and agent.session.identity.expires_at == NOW + 3540


def test_a_token_that_is_refused_leaves_the_old_one_in_force(agent, desk, rooms):
    lead(agent, desk, S.OWNER)
    agent.send(AUTH, payload=b"nonsense")
    assert agent.only(AUTH).code == Reason.UNAUTHORIZED and agent.session.serves(None, "ldap")
    assert rooms.ground.stats.auth_failed == {"malformed": 1}


def test_who_holds_a_token_that_is_refused_is_told_why_and_who_guesses_is_not(agent, desk, rooms):
    lead(agent, desk, S.OWNER)
    refresh(agent, exp=NOW - 600, iat=NOW - 1200)
    assert agent.only(AUTH).payload == b"the token has expired"
    rooms.wait(PAUSE)
    agent.send(AUTH, payload=genuine("HS256", sub="site")[:-8].encode() + b"AAAAAAAA")
    assert agent.only(AUTH).payload == b""


def test_an_agent_is_told_which_connectors_its_token_lacks(agent, desk):
    agent.hello("ldap", "smtp", "x")
    assert refused(agent) == ["smtp", "x"]
    agent.announce("ldap")
    assert refused(agent) == []
    refresh(agent, connectors=["smtp"])
    assert refused(agent) == ["ldap"]
    refresh(agent, connectors=["smtp"])
    assert HELLO_ACK not in agent.types(), "no news"


@pytest.mark.parametrize("claims", [{"sub": "other"}, {"tenant": "acme"}], ids=["agent", "tenant"])
def test_a_token_of_somebody_else_ends_the_tunnel(agent, desk, claims):
    lead(agent, desk, S.OWNER)
    refresh(agent, **claims)
    assert desk.told[-1] == "ended as owner: unauthorized"


def test_a_refreshed_token_counts_only_with_the_certificate_of_the_tunnel(agent, desk, rooms):
    lead(agent, desk, S.OWNER)
    mine, another = thumbprint(b"mine"), thumbprint(b"another")
    agent.session.certificate = ClientCertificate(mine, frozenset())
    refresh(agent, cnf=confirmation(another))
    assert agent.only(AUTH).code == Reason.UNAUTHORIZED and agent.session.identity.certificate is None
    rooms.wait(PAUSE)
    refresh(agent, cnf=confirmation(mine))
    assert agent.only(AUTH).code == 0 and agent.session.identity.certificate == mine
    agent.session.certificate = None
    rooms.wait(PAUSE)
    refresh(agent, cnf=confirmation(mine))
    assert agent.only(AUTH).code == Reason.UNAUTHORIZED
    assert rooms.ground.stats.auth_failed == {"certificate_mismatch": 1, "certificate_missing": 1}


def test_of_two_tokens_that_come_while_one_is_judged_the_later_counts(agent, desk, rooms):
    lead(agent, desk, S.OWNER)
    rooms.tokens.gate = Gate()
    agent.announce("ldap", "ssh")
    for connectors in (["ldap"], ["ssh"], ["ldap", "ssh"]):
        refresh(agent, connectors=connectors)
        rooms.wait(PAUSE)
        agent.session.tick(rooms.ground.clock())
    rooms.tokens.gate.swing()
    assert [one.code for one in agent.taken() if one.type is AUTH] == [
        0,
        0,
    ]  # the first, which was under way, and the last
    assert agent.session.identity.connectors == {"ldap", "ssh"}


# what may be said again and again


def announcing(agent: Agent, desk: Desk) -> tuple[int, frozenset[str]]:
    """How often the desk was told, and of what last."""
    return desk.told.count("announced"), agent.session.connectors


def test_of_many_announcements_within_a_second_the_first_and_the_last_count(agent, desk, rooms):
    lead(agent, desk, S.OWNER)
    for number in range(50):
        agent.announce("ssh" if number % 2 else "ldap")
    assert announcing(agent, desk) == (1, {"ldap"})
    agent.session.tick(rooms.ground.clock() + PAUSE - 0.1)
    assert announcing(agent, desk) == (1, {"ldap"})
    agent.session.tick(rooms.ground.clock() + PAUSE)
    assert announcing(agent, desk) == (2, {"ssh"})
    agent.session.tick(rooms.ground.clock() + 5 * PAUSE)
    assert announcing(agent, desk) == (2, {"ssh"})


def test_an_announcement_that_waits_is_read_when_its_time_has_come(agent, desk, rooms):
    lead(agent, desk, S.OWNER)
    agent.announce("ldap")
    agent.send(FrameType.ANNOUNCE, payload=b"nonsense")
    assert not agent.link.closed
    agent.session.tick(rooms.ground.clock() + PAUSE)
    assert desk.told[-1] == "ended as owner: protocol_error"


def test_an_announcement_from_before_a_claim_is_out_of_date(agent, desk, rooms):
    lead(agent, desk, S.STANDBY)
    agent.announce("ldap")
    agent.announce("ssh")
    agent.hello("ldap")
    assert agent.session.owns
    agent.session.tick(rooms.ground.clock() + PAUSE)
    assert announcing(agent, desk) == (1, {"ldap"})


def test_a_token_a_second_is_judged(agent, desk, rooms):
    lead(agent, desk, S.OWNER)
    for _ in range(20):
        agent.send(AUTH, payload=b"nonsense")
    assert rooms.ground.stats.auth_failed == {"malformed": 1}
    agent.session.tick(rooms.ground.clock() + PAUSE)
    rooms.run()
    assert rooms.ground.stats.auth_failed == {"malformed": 2}


def test_a_session_whose_link_ends_while_its_token_is_judged_does_not_come_back_into_the_routes(rooms):
    """With the real desk: what a refresh announces is routed."""
    agent = rooms.agent("site")
    rooms.tokens.gate = Gate()
    refresh(agent)
    agent.lose()
    rooms.tokens.gate.swing()
    rooms.run()
    assert agent.session.identity.expires_at == NOW + 3540, "the refresh was carried out"
    assert rooms.sessions._routed == rooms.sessions._routes == {} and not rooms.net.failed
    assert rooms.registry.view.agent("/site") is None
    client = rooms.client()
    assert client.reason is None and not client.flow.attached  # held for whoever comes
    assert rooms.agent("site").only(FrameType.M_OPEN).cid == client.flow.cid


# time


def test_who_says_no_hello_is_ended_in_time(agent, desk, rooms):
    timeout = rooms.ground.config.edge.handshake_timeout_sec
    agent.session.tick(rooms.ground.clock() + timeout - 0.1)
    assert not agent.link.closed
    agent.session.tick(rooms.ground.clock() + timeout)
    assert desk.told == ["ended: handshake_timeout"]


def test_a_token_that_has_ended_is_borne_for_its_grace(agent, desk, rooms):
    lead(agent, desk, S.OWNER)
    rooms.wall.now = NOW + 3600 + 59
    agent.session.tick(rooms.ground.clock())
    assert not agent.link.closed
    rooms.wall.now += 1
    agent.session.tick(rooms.ground.clock())
    assert desk.told[-1] == "ended as owner: token_expired"


def test_an_owner_that_falls_silent_is_ended(agent, desk, rooms):
    lead(agent, desk, S.OWNER)
    for _ in range(int(rooms.ground.config.tunnel.ping_timeout_sec) + 2):
        agent.session.tick(rooms.ground.clock())
        rooms.wait(1)
    assert desk.told[-1] == "ended as owner: keepalive_timeout"
