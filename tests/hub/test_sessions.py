"""The table of sessions: one current for each agent, and who serves what."""

from __future__ import annotations

from hub.far import Agent
from hub.rooms import NOW, Rooms, identity


class Desk:
    """Lets every claim be, and hears nothing."""

    async def claim(self, session, hello) -> None:
        session.granted(hello.last_epoch + 1)

    def granted(self, session) -> None: ...
    def announced(self, session) -> None: ...
    def leaving(self, session) -> None: ...
    def ended(self, session, reason, *, owned) -> None: ...


def agents(rooms: Rooms, *names: str, tenant: str | None = None) -> list[Agent]:
    """Owners of which the table knows only that they are there."""
    return [Agent(rooms, identity(name, tenant=tenant), desk=Desk()).claim("ldap", "ssh") for name in names]


def test_an_agent_has_one_current_session_and_the_latest_put_is_it():
    rooms = Rooms()
    old, new = agents(rooms, "site", "site")
    table = rooms.sessions
    assert table.current("/site") is None
    for one in (old, new):
        table.put(one.session)
        assert table.current("/site") is one.session and table.is_current(one.session)
    assert not table.is_current(old.session)
    assert not table.drop(old.session) and table.current("/site") is new.session
    assert table.drop(new.session) and table.current("/site") is None
    assert not table.drop(new.session)


def test_an_agent_has_so_many_tunnels_and_the_oldest_that_do_not_own_it_go():
    rooms = Rooms()
    table = rooms.sessions
    (other,) = agents(rooms, "other")
    (owner,) = agents(rooms, "site")
    standbys = []
    for _ in range(5):
        table.make_room("/site")
        standbys.append(Agent(rooms, identity("site")))
        standbys[-1].hello("ldap", standby=True)
        assert len(table) <= 4
    assert not owner.link.closed and not other.link.closed
    assert [standby.link.closed for standby in standbys] == [True, True, True, False, False]
    table.make_room("/site", 2)
    assert standbys[3].link.closed and standbys[4].link.closed and not owner.link.closed
    table.make_room("/nobody")
    assert list(table) == [other.session, owner.session]


def test_tenants_are_name_spaces_of_their_own():
    rooms = Rooms()
    (plain,), (acme,) = agents(rooms, "site"), agents(rooms, "site", tenant="acme")
    for one in (plain, acme):
        rooms.sessions.put(one.session)
        rooms.sessions.route(one.session)
    assert rooms.sessions.current("/site") is plain.session and rooms.sessions.current("acme/site") is acme.session
    assert rooms.sessions.serving("acme", "ldap") == [acme.session]
    assert rooms.sessions.serving(None, "ldap") == [plain.session]


def test_a_connectors_last_session_leaves_it_an_orphan():
    rooms = Rooms()
    one, two = (agent.session for agent in agents(rooms, "one", "two"))
    table = rooms.sessions
    assert table.route(one) == table.route(two) == [(None, "ldap"), (None, "ssh")]
    assert table.serving(None, "ldap") == [one, two]
    assert table.unroute(one) == [] and table.serving(None, "ldap") == [two]
    assert table.unroute(two) == [(None, "ldap"), (None, "ssh")]
    assert table.unroute(two) == [] and table.serving(None, "ldap") == []


def test_what_is_routed_serves_only_while_it_may():
    rooms = Rooms()
    (agent,) = agents(rooms, "site")
    rooms.sessions.route(agent.session)
    rooms.wall.now = NOW + 3600
    assert rooms.sessions.serving(None, "ldap") == []


def test_a_session_that_ends_is_out_of_the_table_and_its_bytes_stay_in_the_totals():
    rooms = Rooms()
    one, two = agents(rooms, "one", "two")
    assert list(rooms.sessions) == [one.session, two.session] and len(rooms.sessions) == 2
    rooms.sessions.remove(one.session)
    assert list(rooms.sessions) == [two.session]
    assert rooms.sessions.totals.bytes_in == one.link.bytes_in > 0
