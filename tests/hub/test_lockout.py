"""An agent that is locked out: what stands ends, with a reason of its own, and nothing new comes about."""

from __future__ import annotations

import pytest
from mesh.hubs import until
from support.tokens import SECRET

from hub import doors as d
from hub.far import Agent
from hub.rooms import NOW, Rooms, hub_config, identity
from hub.seam import Gate
from ncfast._frames import FrameType
from ncfast.auth.mint import mint
from ncfast.config.hub import Jwt
from ncfast.core.errors import Reason
from ncfast.hub.lockout import LockRefused
from ncfast.registry.locks import LONGEST, Lock

OPEN, OPEN_ACK, RST = FrameType.M_OPEN, FrameType.M_OPEN_ACK, FrameType.M_RST


def served(mode: str = "off") -> tuple[Rooms, Agent, object]:
    """A client whose flow the agent has accepted."""
    rooms = Rooms(mode)
    agent = rooms.agent()
    client = rooms.client()
    agent.accept(agent.only(OPEN))
    return rooms, agent, client


def test_flows_tunnels_and_opens_of_a_locked_agent_end_with_its_reason():
    rooms, agent, client = served()
    standby = Agent(rooms, identity())
    standby.hello("ldap", standby=True)
    lock = rooms.lockout.kick("site", None, 60, "stolen")
    assert (lock.key, lock.until, lock.reason) == ("/site", NOW + 60, "stolen")
    assert client.reason is Reason.AGENT_LOCKED
    rooms.run()
    assert agent.link.closed and standby.link.closed and rooms.sessions.current("/site") is None
    assert RST in agent.types()  # before the tunnel's end
    assert rooms.ground.stats.tunnels_closed["agent_locked"] == 2
    late = rooms.client()
    assert late.reason is Reason.AGENT_LOCKED  # at once: nobody is held for it


def test_another_agent_of_the_connector_serves_instead():
    rooms, agent, client = served()
    other = rooms.agent("other")
    rooms.lockout.kick("site", None, 60)
    rooms.run()
    rooms.client()
    other.only(OPEN)


def test_relayed_flows_end_at_both_sides_and_opens_are_refused():
    rooms = Rooms("active")
    hub, agent = rooms.hub(), rooms.agent()
    hub.open(hub.cid(), agent.session.epoch)
    agent.accept(agent.only(OPEN))
    hub.only(OPEN_ACK)
    rooms.lockout.kick("site", None, 60)
    assert hub.only(RST).code == Reason.AGENT_LOCKED
    assert agent.taken()[0].code == Reason.AGENT_LOCKED and rooms.relays.by_cid == {}
    rooms.run()
    hub.open(hub.cid(2), 1)
    assert hub.only(RST).code == Reason.AGENT_LOCKED
    hub.seek(hub.cid(3), 1)
    assert hub.only(RST).code == Reason.AGENT_LOCKED


def test_flows_to_a_locked_agent_of_another_hub_end_and_none_is_sent_there():
    rooms = Rooms("active")
    hub = rooms.hub()
    rooms.elsewhere()
    client = rooms.client()
    hub.accept(hub.only(OPEN))
    rooms.lockout.kick("site", None, 60)
    assert client.reason is Reason.AGENT_LOCKED
    assert hub.only(RST).code == Reason.AGENT_LOCKED
    late = rooms.client()
    assert hub.taken() == [] and late.reason is None  # its hub has not said yet that it has gone
    rooms.registry.view.drop("/site")
    rooms.router.changed(frozenset({"/site"}))
    assert rooms.client().reason is Reason.AGENT_LOCKED


def test_an_owner_that_knows_of_the_lock_first_says_so_and_the_open_goes_elsewhere():
    rooms = Rooms("active")
    hub = rooms.hub()
    rooms.elsewhere()
    client = rooms.client()
    opened = hub.only(OPEN)
    other = rooms.agent("other")
    hub.refuse(opened, Reason.AGENT_LOCKED)
    other.only(OPEN)
    assert client.reason is None


def test_a_claim_under_way_comes_to_nothing():
    rooms = Rooms()
    gate = rooms.registry.gate = Gate()
    agent = Agent(rooms, identity())
    agent.hello("ldap")
    rooms.lockout.kick("site", None, 60)
    rooms.run()
    assert agent.link.closed
    gate.swing()
    rooms.run()
    assert rooms.sessions.current("/site") is None and rooms.registry.view.agent("/site") is None


def test_a_lock_ends_by_its_time_or_is_lifted():
    rooms = Rooms()
    rooms.lockout.kick("site", None, 60)
    rooms.wall.now += 59
    rooms.lockout.tick()
    assert "/site" in rooms.ground.locks
    rooms.wall.now += 1
    assert "/site" not in rooms.ground.locks
    rooms.lockout.tick()
    assert rooms.ground.locks.words() == []
    rooms.lockout.kick("site", None, 60)
    assert rooms.lockout.kick("site", None, 0).lifted and "/site" not in rooms.ground.locks
    with pytest.raises(LockRefused, match="not locked"):
        rooms.lockout.unlock("site", None)
    rooms.agent()  # comes in
    with pytest.raises(LockRefused, match="30 days"):
        rooms.lockout.kick("site", None, LONGEST + 1)


def test_an_id_alone_means_the_agent_that_has_it():
    rooms = Rooms()
    Agent(rooms, identity("site", tenant="acme")).claim()
    assert rooms.lockout.kick("site", None, 60).key == "acme/site"
    rooms.run()
    Agent(rooms, identity("site", tenant="other")).claim()
    with pytest.raises(LockRefused, match="several tenants: acme/site, other/site"):
        rooms.lockout.kick("site", None, 60)
    assert rooms.lockout.kick("site", "other", 60).key == rooms.lockout.kick("other/site", None, 60).key == "other/site"
    assert rooms.lockout.kick("nobody", None, 60).key == "/nobody" and not rooms.lockout.knows("/nobody")


@pytest.mark.parametrize(
    "word",
    [
        Lock("/site", int(NOW), 5),
        Lock("/site", int(NOW + 3 * LONGEST), 5),
        Lock("/site", int(NOW + 60), int((NOW + 7200) * 1e6)),
    ],
    ids=["over", "for ever", "of a clock far ahead"],
)
def test_what_no_honest_hub_says_is_not_believed(word):
    rooms, _, client = served()
    rooms.ground.locks.take(word)
    assert client.reason is None and rooms.ground.locks.words() == []


def test_of_two_words_the_later_counts():
    rooms = Rooms()
    locks = rooms.ground.locks
    lock = rooms.lockout.kick("site", None, 60)
    lifted = locks.lift("/site")
    assert lifted.stamp > lock.stamp
    locks.take(lock)
    assert "/site" not in locks
    locks.take(Lock("/site", lock.until, lifted.stamp + 1))
    assert "/site" in locks


# handshakes, and tokens of tunnels that stand


def play(tmp_path, scene):
    async def main():
        async with d.doors(tmp_path) as hub:
            await hub.edge.open()
            await scene(hub)

    d.run(main)


def request(token: str) -> bytes:
    return (
        b"GET /tunnel HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer " + token.encode() + b"\r\n\r\n"
    )


async def tunnel(hub: d.Doors, token: str):
    """What the edge says, and what keeps the tunnel."""
    reader, writer = await d.dial(hub.edge.address)
    writer.write(request(token))
    return (await reader.readline()).split()[1], writer


def token(agent: str = "site", secret: bytes = SECRET, at: float = NOW - 60) -> str:
    return mint(secret, agent, None, now=at)


def test_a_locked_agent_gets_no_tunnel(tmp_path):
    async def scene(hub):
        hub.lockout.kick("site", None, 60)
        status, writer = await tunnel(hub, token())
        writer.close()
        assert status == b"403" and hub.ground.stats.handshakes_refused["agent_locked"] == 1
        status, writer = await tunnel(hub, token("other"))
        writer.close()
        assert status == b"101"

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("rule", "ends"),
    [
        ({"sub": "site"}, Reason.AGENT_LOCKED),
        ({"sub": "site", "issued_before": NOW}, Reason.UNAUTHORIZED),
        ({"issued_before": NOW}, Reason.UNAUTHORIZED),
        ({"issued_before": NOW - 60}, None),
        ({"sub": "other"}, None),
        ({"sub": "site", "tenant": "acme"}, None),
    ],
)
def test_a_reload_ends_standing_tunnels_whose_token_is_denied(tmp_path, rule, ends):
    async def scene(hub):
        status, writer = await tunnel(hub, token())
        assert status == b"101"
        (session,) = hub.sessions
        denying = Jwt.model_validate(hub.jwt.model_dump() | {"deny": [rule]})
        await hub.apply(hub_config(edge={"bind": "127.0.0.1:0"}), denying)
        if ends is None:
            await until(lambda: not hub.review._left, "all are judged")
            assert not session.link.closed
        else:
            await until(lambda: session.link.closed, "ended")
            assert hub.ground.stats.tunnels_closed == {ends.label: 1} and hub.ground.stats.auth_failed == {"denied": 1}
            assert (await tunnel(hub, token()))[0] == b"401"
        writer.close()

    play(tmp_path, scene)


def test_a_reload_ends_standing_tunnels_whose_key_is_gone(tmp_path):
    async def scene(hub):
        status, writer = await tunnel(hub, token())
        assert status == b"101"
        (session,) = hub.sessions
        await hub.apply(hub_config(edge={"bind": "127.0.0.1:0"}))  # the same key, read again
        await until(lambda: not hub.review._left, "all are judged")
        assert not session.link.closed
        await hub.apply(
            hub_config(edge={"bind": "127.0.0.1:0"}), d.key(tmp_path, b"another secret of 32 bytes or more")
        )
        await until(lambda: session.link.closed, "ended")
        assert hub.ground.stats.auth_failed == {"unknown_key": 1}
        writer.close()

    play(tmp_path, scene)
