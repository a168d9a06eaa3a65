"""Which agent a client's flow goes to, who waits, and what becomes of a flow that was refused: the rules of
`ncfast.hub.routing`."""

from __future__ import annotations

import pytest
from core.raw import Frame

from hub.far import OTHER_PROCESS, Far, OtherHub
from hub.rooms import Client, Rooms, listener
from ncfast._frames import FrameType
from ncfast.core.errors import Reason
from ncfast.core.opening import Opening
from ncfast.hub import choice, routing
from ncfast.hub.routing import ASK_AGAIN, ASK_DOUBLES, SEEK_EVERY, STARTUP_HOLD
from ncfast.registry import View

OPEN, RESUME, RST, DETACH = FrameType.M_OPEN, FrameType.M_RESUME, FrameType.M_RST, FrameType.M_DETACH


def carried(rooms: Rooms, far: Far, sent: bytes = b"") -> Client:
    """A client whose flow `far` has accepted, and which has sent something since."""
    client = rooms.client()
    far.accept(far.only(OPEN))
    if sent:
        client.socket.send(sent)
        far.only(FrameType.M_DATA)
    assert not client.flow.opening
    return client


def remote(mode: str = "active", epoch: int = 5, **settings: str) -> tuple[Rooms, OtherHub]:
    """A hub, and another that owns the agent `site`."""
    rooms = Rooms(mode, **settings)
    hub = rooms.hub()
    rooms.elsewhere(epoch=epoch)
    return rooms, hub


# rule 1: an accepted flow is its agent's for good


def test_an_accepted_flow_waits_for_its_agent_though_another_serves():
    rooms = Rooms()
    site = rooms.agent("site")
    client = carried(rooms, site)
    spare = rooms.agent("spare")
    site.lose()
    client.look_after()
    assert not client.flow.attached and client.reason is None
    assert spare.taken() == []


def test_the_agent_asks_for_its_flow_where_it_claims_and_gets_the_bytes_that_it_lacks():
    rooms = Rooms()
    client = carried(rooms, first := rooms.agent(), b"a ")
    first.lose()
    client.socket.send(b"question")
    second = rooms.agent()
    second.resume(client.flow.cid, client.flow.secret, ack=2)
    assert [(one.type, one.payload) for one in second.taken()] == [
        (FrameType.M_RESUME_ACK, b""),
        (FrameType.M_DATA, b"question"),
    ]
    assert client.flow.info.session is second.session and client.flow.info.resumes == 1


def test_a_flow_is_asked_for_when_a_link_to_its_owner_comes_up():
    rooms, hub = remote()
    client = carried(rooms, hub)
    hub.lose()
    assert client.flow.detached_at >= 0
    again = rooms.hub()
    asked = again.only(RESUME)
    assert (asked.cid, asked.epoch, asked.payload[:16]) == (client.flow.cid, 5, client.flow.secret)


def test_a_flow_without_a_way_is_asked_for_again_and_again_but_not_all_the_time():
    rooms, hub = remote()
    client = carried(rooms, hub)

    def away() -> None:
        hub.send(DETACH, cid=client.flow.cid, epoch=5, code=Reason.LINK_LOST)
        assert not client.flow.attached

    away()
    for _ in range(3):
        rooms.wait(SEEK_EVERY - 0.1)
        client.look_after()
        assert hub.taken() == []
        rooms.wait(0.1)
        client.look_after()
        hub.only(RESUME)
        away()


def test_a_flow_that_its_agent_does_not_ask_for_in_time_is_forgotten():
    """Same process, here: it has asked for all that it has."""
    rooms = Rooms()
    client = carried(rooms, first := rooms.agent())
    first.lose()
    second = rooms.agent()
    rooms.wait(second.session.resuming_until - rooms.ground.clock() - 0.1)
    client.look_after()
    assert client.reason is None
    rooms.wait(0.1)
    client.look_after()
    assert client.reason is Reason.LINK_LOST


# rule 2: an opening flow is opened again on the same agent


def test_an_opening_flow_is_opened_again_on_its_agent_though_another_serves():
    rooms = Rooms()
    site = rooms.agent("site")
    client = rooms.client()
    site.only(OPEN)
    spare = rooms.agent("spare")
    site.lose()
    assert spare.taken() == []
    again = rooms.agent("site")
    assert again.only(OPEN).cid == client.flow.cid and spare.taken() == []


def test_an_opening_flow_is_opened_again_where_the_registry_says_that_its_agent_is():
    rooms, hub = remote()
    other = rooms.hub("hub-c")
    client = rooms.client()
    assert hub.only(OPEN).epoch == 5
    rooms.elsewhere(owner="hub-c", epoch=6)
    again = other.only(OPEN)
    assert (again.cid, again.epoch) == (client.flow.cid, 6)


def test_an_open_that_was_sent_twice_is_not_taken_elsewhere_by_a_refusal():
    """The first may have reached the agent, and its target."""
    rooms = Rooms()
    site = rooms.agent("site")
    client = rooms.client()
    site.lose()
    spare, again = rooms.agent("spare"), rooms.agent("site")
    again.refuse(again.only(OPEN), Reason.OVERLOADED)
    assert client.reason is None and spare.taken() == []
    rooms.router.tick(rooms.ground.clock())
    assert again.only(OPEN).cid == client.flow.cid and spare.taken() == []


def test_an_open_that_was_sent_twice_waits_for_its_turn_as_long_as_clients_are_held():
    rooms = Rooms()
    first = rooms.agent()
    client = rooms.client(listener(hold_sec=3))
    first.lose()
    again = rooms.agent()
    for _ in range(3):
        again.refuse(again.only(OPEN), Reason.OVERLOADED)
        assert client.reason is None
        rooms.wait(1)
        rooms.router.tick(rooms.ground.clock())
    again.refuse(again.only(OPEN), Reason.OVERLOADED)
    assert client.reason is Reason.OVERLOADED and len(rooms.pending) == 0


class FullHub:
    """Another hub whose agent may have `most` opens in progress: what comes beyond them it refuses."""

    def __init__(self, hub: OtherHub, most: int) -> None:
        self.hub = hub
        self.most = most
        self.dials: list[Frame] = []
        self.asked = 0

    def take(self) -> None:
        while opens := [one for one in self.hub.taken() if one.type is OPEN]:
            self.asked += len(opens)
            for one in opens:
                if len(self.dials) < self.most:
                    self.dials.append(one)
                else:
                    self.hub.refuse(one, Reason.OVERLOADED)

    def answer(self) -> None:
        """One target is connected."""
        self.hub.accept(self.dials.pop(0))
        self.take()


def test_all_clients_of_a_silent_owner_are_served_by_the_next_though_it_is_full_of_others():
    """Those whose opens the owner had, and those who were held behind them."""
    rooms, _ = remote()
    rooms.pending.most = 100
    owner = FullHub(rooms.hub("hub-c"), most=20)
    clients = [rooms.client() for _ in range(250)]
    assert len(rooms.pending) == 75 and len(rooms.router.hold.flows()) == 175
    rooms.elsewhere(owner="hub-c", epoch=6)
    owner.take()
    asked = owner.asked
    for _ in clients:
        while not owner.dials:
            rooms.wait(0.1)
            rooms.router.tick(rooms.ground.clock())
            owner.take()
            asked = owner.asked
        owner.answer()
        assert owner.asked <= asked + 1, "an answer brings one open, and no flood of them"
        asked = owner.asked
    assert [client.reason for client in clients] == [None] * len(clients)
    assert not any(client.flow.opening for client in clients) and len(rooms.pending) == 0


def test_those_who_wait_for_their_turn_go_before_those_who_are_held():
    rooms, _ = remote()
    rooms.pending.most = 2
    hub = rooms.hub("hub-c")
    first, second, _ = (rooms.client() for _ in range(3))
    rooms.elsewhere(owner="hub-c", epoch=6)
    one, two = hub.taken()
    hub.refuse(two, Reason.OVERLOADED)
    hub.accept(one)
    assert hub.only(OPEN).cid == second.flow.cid and not first.flow.opening


def test_a_flow_that_waits_for_its_turn_goes_on_when_its_agent_has_it_already():
    rooms = Rooms()
    first = rooms.agent()
    client = rooms.client()
    first.lose()
    again = rooms.agent()
    again.refuse(again.only(OPEN), Reason.OVERLOADED)
    again.resume(client.flow.cid, client.flow.secret)
    again.only(FrameType.M_RESUME_ACK)
    rooms.router.tick(rooms.ground.clock())
    assert again.taken() == [] and client.reason is None and not client.flow.opening


def test_an_open_that_was_sent_twice_waits_when_the_hub_does_not_own_the_agent():
    rooms, hub = remote()
    rooms.hub("hub-c")
    client = rooms.client()
    rooms.elsewhere(epoch=6)
    _, again = hub.taken()
    hub.refuse(again, Reason.NOT_OWNER)
    assert client.reason is None and not client.flow.attached and client.flow.info.agent_key == "/site"
    rooms.wait(ASK_AGAIN)
    assert hub.only(OPEN).cid == client.flow.cid


# rule 3: a refusal sends the flow on only if no target can have seen a byte


@pytest.mark.parametrize(
    "reason", [Reason.TARGET_REFUSED, Reason.NO_SUCH_CONNECTOR, Reason.OVERLOADED, Reason.DRAINING]
)
def test_a_refused_flow_goes_to_an_agent_that_has_not_refused_it_with_all_its_bytes(reason):
    rooms = Rooms()
    agents = [rooms.agent("one"), rooms.agent("two")]
    client = rooms.client()
    client.socket.send(b"hello")
    ((first, came),) = [(agent, seen) for agent in agents if (seen := agent.taken())]
    first.refuse(came[0], reason)
    second = agents[1] if first is agents[0] else agents[0]
    assert [(one.type, one.payload[:5]) for one in second.taken()] == [(OPEN, b'{"con'), (FrameType.M_DATA, b"hello")]
    assert rooms.ground.stats.flows_retried == 1
    second.refuse(came[0]._replace(epoch=second.link.epoch), reason)
    assert client.reason is (None if reason is Reason.OVERLOADED else reason)
    assert [agent.taken() for agent in agents] == [[], []], "each is asked once"


def test_a_flow_of_which_the_agent_has_bytes_ends_when_it_is_refused():
    rooms = Rooms()
    site = rooms.agent("site")
    client = rooms.client()
    spare = rooms.agent("spare")
    client.socket.send(b"hello")
    opened, _ = site.taken()
    site.send(FrameType.M_ACK, cid=opened.cid, epoch=1, ack=5, limit=1 << 20)
    site.refuse(opened, Reason.TARGET_REFUSED)
    assert client.reason is Reason.TARGET_REFUSED and spare.taken() == []


@pytest.mark.parametrize("reason", [Reason.TARGET_REFUSED, Reason.NO_SUCH_CONNECTOR])
def test_a_refusal_by_way_of_another_hub_of_an_open_that_was_sent_before_ends_the_flow(reason):
    """It may be the answer to the first, whose relay has outlived the link; the agent takes the second, perhaps."""
    rooms, hub = remote(epoch=5)
    client = rooms.client()
    client.socket.send(b"hello")
    first, _ = hub.taken()
    hub.lose()
    hub = rooms.hub()
    again, data = hub.taken()
    assert (again.type, again.cid, again.epoch, data.payload) == (OPEN, first.cid, 5, b"hello")
    spare = rooms.agent("spare")
    hub.refuse(again, reason)
    assert client.reason is reason and spare.taken() == []


def test_a_hub_that_does_not_own_the_agent_is_asked_again_after_a_while_that_doubles():
    rooms, hub = remote()
    client = rooms.client()
    hub.refuse(hub.only(OPEN), Reason.NOT_OWNER)
    pauses = [ASK_AGAIN * 2 ** min(count, ASK_DOUBLES) for count in range(ASK_DOUBLES + 3)]
    assert pauses[-1] == pauses[-3] == 1.6
    for pause in pauses:
        assert hub.taken() == [] and client.reason is None
        assert not client.flow.attached and client.flow.detached_at < 0, "it has not lost a way, it has none yet"
        rooms.wait(pause * 0.9)
        assert hub.taken() == []
        rooms.wait(pause * 0.2)
        hub.refuse(hub.only(OPEN), Reason.NOT_OWNER)


# rule 4: what comes under an older epoch is stale


def test_an_older_epoch_in_the_view_moves_no_flow():
    rooms, hub = remote(epoch=5)
    other = rooms.hub("hub-c")
    client = rooms.client()
    hub.only(OPEN)
    rooms.elsewhere(owner="hub-c", epoch=4, instance=OTHER_PROCESS)
    assert other.taken() == [] and client.flow.attached and client.reason is None


# choosing


def test_local_agents_come_first_and_among_them_the_least_loaded():
    rooms, hub = remote()
    agents = [rooms.agent("one"), rooms.agent("two")]
    for _ in range(10):
        rooms.client()
        rooms.client()
        assert [agent.types() for agent in agents] == [[OPEN], [OPEN]]
    assert hub.taken() == []


def test_of_very_many_agents_some_are_compared_and_the_others_when_none_of_those_will_do(monkeypatch):
    monkeypatch.setattr(choice, "DRAWN", 2)
    rooms = Rooms()
    agents = [rooms.agent(f"site-{number}") for number in range(8)]
    for _ in range(40):
        rooms.client()
    loads = [len(agent.taken()) for agent in agents]
    assert sum(loads) == 40 and max(loads) < 15
    willing = agents[5]
    for agent in agents:
        if agent is not willing:
            agent.session.draining = True  # and still among them
    for _ in range(10):
        rooms.client()
    assert willing.types() == [OPEN] * 10


def test_of_agents_of_other_hubs_the_one_with_fewer_of_our_flows_is_taken():
    rooms, hub = remote()
    rooms.elsewhere("two", epoch=1)
    for _ in range(6):
        rooms.client()
    opened = [Opening.unpack(one.payload).agent for one in hub.taken()]
    assert sorted(opened) == ["site"] * 3 + ["two"] * 3


@pytest.mark.parametrize("why", ["off", "shadow", "stale view", "no link", "leaving", "full", "owned here"])
def test_no_way_to_another_hub(why):
    mode = why if why in ("off", "shadow") else "active"
    rooms = Rooms(mode, without_redis="local_only", limits={"pending_opens_per_agent": 1})
    hub = rooms.hub() if mode != "off" and why != "no link" else None
    if why == "off":
        rooms.known("hub-b", b"hub-b...")
    rooms.elsewhere()
    if why == "stale view":
        rooms.registry.view.doubt()
    elif why == "leaving":
        hub.send(FrameType.GOAWAY, code=Reason.DRAINING)
    elif why == "full":
        rooms.pending.begin("/site", "ldap")
    elif why == "owned here":  # and the view does not know it yet
        site = rooms.agent("site", "other")
        rooms.elsewhere()
        rooms.sessions.put(site.session)
    client = rooms.client(listener(hold_sec=0))
    assert client.reason in (Reason.NO_AGENT, Reason.OVERLOADED)
    assert hub is None or OPEN not in hub.types()


def test_an_agent_has_no_more_opens_in_progress_than_it_may():
    rooms = Rooms(limits={"pending_opens_per_agent": 2})
    site = rooms.agent()
    clients = [rooms.client() for _ in range(3)]
    first, second = site.taken()
    site.accept(first)
    assert site.only(OPEN).cid == clients[2].flow.cid
    assert len(rooms.pending) == 2 and not second.cid == first.cid


def test_shadow_looks_and_does_not_touch():
    rooms, hub = remote("shadow")
    rooms.client()
    rooms.agent("two", "ssh")
    rooms.client(listener(connector="ssh"))
    rooms.client(listener(connector="none"))
    decisions = rooms.ground.stats.shadow_decisions
    assert decisions == {("mesh", "no"): 1, ("local", "yes"): 1, ("none", "yes"): 1}
    assert hub.taken() == []


# while Redis is away


def away(rooms: Rooms) -> None:
    """Redis does not answer, and has not for long."""
    rooms.registry.view.doubt()
    rooms.wait(3600)


def test_without_redis_the_last_view_routes():
    rooms, hub = remote()
    away(rooms)
    client = rooms.client()
    asked = hub.only(OPEN)
    assert (asked.cid, asked.epoch) == (client.flow.cid, 5)
    hub.accept(asked)
    assert client.reason is None and not client.flow.opening


def test_without_redis_local_only_refuses_at_once_whom_no_agent_of_ours_serves():
    rooms, hub = remote(without_redis="local_only")
    near = rooms.agent("near", "near")
    away(rooms)
    assert rooms.client().reason is Reason.NO_AGENT and hub.taken() == []
    rooms.client(listener(connector="near"))
    near.only(OPEN)
    rooms.registry.view.confirm()
    rooms.client()
    hub.only(OPEN)


def test_without_redis_the_clients_of_a_dead_owner_wait_for_its_link():
    """That the owner has died meanwhile the link tells, and nobody is asked."""
    rooms, hub = remote()
    hub.lose()
    away(rooms)
    client = rooms.client(listener(hold_sec=3))
    assert client.reason is None
    assert rooms.hub().only(OPEN).cid == client.flow.cid
    rooms, hub = remote()
    hub.lose()
    away(rooms)
    client = rooms.client(listener(hold_sec=3))
    rooms.wait(3)
    rooms.router.tick(rooms.ground.clock())
    assert client.reason is Reason.HOLD_TIMEOUT


@pytest.mark.parametrize("says", [Reason.NOT_OWNER, Reason.STALE_EPOCH])
def test_without_redis_an_agent_that_has_moved_is_sought_for_as_long_as_clients_are_held(says):
    """The owner of the last view says that it is wrong; nobody else is asked, and nothing is opened twice."""
    rooms, hub = remote()
    other = rooms.hub("hub-c")
    away(rooms)
    client = rooms.client(listener(hold_sec=3))
    asks, until = 0, rooms.ground.clock() + 3
    while client.reason is None:
        for asked in hub.taken():
            asks += 1
            hub.refuse(asked, says)
        rooms.wait(0.1)
        rooms.router.tick(rooms.ground.clock())
        assert rooms.ground.clock() < until + 1
    assert client.reason is Reason.HOLD_TIMEOUT and 2 < asks <= ASK_DOUBLES + 2
    assert other.taken() == []


def test_without_redis_an_agent_that_has_moved_here_is_ours():
    """Though the last view says that it is another hub's."""
    rooms, hub = remote()
    away(rooms)
    site = rooms.agent("site", "other")
    rooms.elsewhere(epoch=5)
    client = rooms.client(listener(hold_sec=3))
    assert client.reason is None and hub.taken() == [], "it does not serve the connector here, and is not there"
    site.announce("ldap", "other")
    assert site.only(OPEN).cid == client.flow.cid


def test_without_redis_a_hub_that_has_never_heard_it_holds_its_clients():
    """It knows nobody, and that is no news of anybody."""
    rooms, _ = remote()
    view = rooms.registry.view = View(rooms.ground.clock, 5.0)
    client = rooms.client(listener(hold_sec=3))
    assert client.reason is None
    rooms.wait(3)
    rooms.router.tick(rooms.ground.clock())
    assert client.reason is Reason.HOLD_TIMEOUT
    view.confirm()
    view.doubt()
    assert rooms.client(listener(connector="none")).reason is Reason.NO_AGENT, "it was told of nobody"


def test_without_redis_shadow_says_what_active_would_do():
    for key, decision in (("last_view", ("mesh", "no")), ("local_only", ("none", "yes"))):
        rooms, _ = remote("shadow", without_redis=key)
        away(rooms)
        rooms.client()
        assert rooms.ground.stats.shadow_decisions == {decision: 1}


# waiting


def test_clients_of_a_connector_whose_agent_has_just_left_wait_for_it_in_order():
    rooms = Rooms()
    rooms.agent().lose()
    clients = [rooms.client() for _ in range(3)]
    again = rooms.agent()
    assert [one.cid for one in again.taken()] == [client.flow.cid for client in clients]


def test_whoever_comes_stands_behind_those_who_wait_even_if_there_is_room():
    rooms = Rooms(limits={"pending_opens_per_agent": 1})
    agent = rooms.agent()
    first, second = rooms.client(), rooms.client()
    agent.only(OPEN)
    first.flow.reset(Reason.CLIENT_RESET)
    agent.taken()
    third = rooms.client()
    assert agent.taken() == [] and third.reason is None
    rooms.router.tick(rooms.ground.clock())
    assert agent.only(OPEN).cid == second.flow.cid


def test_a_client_of_a_connector_that_nobody_has_served_lately_is_refused():
    rooms = Rooms()
    assert rooms.client().reason is Reason.NO_AGENT
    rooms.agent().lose()
    rooms.wait(rooms.ground.config.flow.grace_sec)
    assert rooms.client().reason is Reason.NO_AGENT
    assert rooms.ground.stats.listener("in").opens_refused["no_agent"] == 2


def test_how_many_agents_could_serve_a_listener():
    rooms = Rooms("active")
    ldap, sql = (None, "ldap"), (None, "sql")
    assert rooms.router.reach(ldap) == 0
    here = rooms.agent("here", "ldap")
    hub = rooms.hub("hub-b")
    rooms.elsewhere("there")
    rooms.elsewhere("nowhere", owner="hub-c")  # no link leads to it
    assert rooms.router.reach(ldap) == 2 and rooms.router.reach(sql) == 0
    assert rooms.router.reach(("acme", "ldap")) == 0  # another tenant's
    rooms.elsewhere("here")  # of whose move we have not heard the end: it is one agent
    assert rooms.router.reach(ldap) == 2
    hub.lose()
    assert rooms.router.reach(ldap) == 1
    here.lose()
    assert rooms.router.reach(ldap) == 0


def test_without_a_cluster_only_agents_that_are_here_count():
    rooms = Rooms("shadow")
    rooms.agent("here", "ldap")
    rooms.elsewhere("there")
    assert rooms.router.reach((None, "ldap")) == 1


def test_while_agents_come_over_from_a_predecessor_each_counts_as_reconnecting():
    rooms = Rooms()
    rooms.ground.taking = object()
    assert rooms.client().reason is None
    rooms.ground.taking = None
    assert rooms.client(listener(connector="none")).reason is Reason.NO_AGENT


def test_an_agent_of_another_hub_is_waited_for_until_the_mesh_is_open():
    rooms, hub = remote()
    rooms.elsewhere()
    mesh, rooms.ways.mesh = rooms.ways.mesh, None
    waiting = rooms.client()
    assert waiting.reason is None
    rooms.ways.mesh = mesh
    rooms.wait(1)
    rooms.router.tick(rooms.ground.clock())
    assert hub.only(OPEN).cid == waiting.flow.cid


def test_after_a_start_every_agent_counts_as_reconnecting():
    rooms = Rooms()
    rooms.ground.started_at = rooms.ground.clock()
    waiting = rooms.client()
    rooms.wait(STARTUP_HOLD)
    assert rooms.client().reason is Reason.NO_AGENT
    assert rooms.agent().only(OPEN).cid == waiting.flow.cid


def test_a_held_client_is_refused_when_its_time_is_over():
    rooms = Rooms()
    rooms.agent().lose()
    client = rooms.client(listener(hold_sec=3))
    rooms.wait(3)
    rooms.router.tick(rooms.ground.clock())
    assert client.reason is Reason.HOLD_TIMEOUT and rooms.ground.stats.listener("in").opens_refused["hold_timeout"] == 1


def test_connectors_of_departed_agents_are_remembered_in_bounds(monkeypatch):
    monkeypatch.setattr(routing, "ROUTE_MEMORY", 2)
    rooms = Rooms()
    for connector in ("one", "two", "three"):
        rooms.agent(connector, connector).lose()
    reasons = [rooms.client(listener(connector=connector)).reason for connector in ("one", "two", "three")]
    assert reasons == [Reason.NO_AGENT, None, None]


def test_a_link_that_comes_up_releases_those_who_wait_for_agents_behind_it():
    rooms = Rooms("active")
    rooms.known("hub-b", b"hub-b...")
    rooms.elsewhere()
    client = rooms.client()
    assert client.reason is None
    assert rooms.hub().only(OPEN).cid == client.flow.cid


def test_an_entry_that_goes_leaves_its_clients_in_hope_until_another_comes():
    rooms, hub = remote()
    rooms.registry.view.drop("/site")
    rooms.router.changed(frozenset({"/site"}))
    client = rooms.client()
    assert client.reason is None and hub.taken() == []
    rooms.elsewhere("two", epoch=1)
    assert hub.only(OPEN).cid == client.flow.cid


# time


def test_a_stalled_flow_cuts_its_tunnel_but_never_a_link_between_hubs():
    rooms, hub = remote()
    stall = rooms.ground.config.flow.stall_sec
    near, far = rooms.agent("near", "near"), hub
    local = rooms.client(listener(connector="near"))
    near.accept(near.only(OPEN))
    distant = carried(rooms, far)
    for client in (local, distant):
        client.socket.send(b"never acknowledged")
    rooms.wait(stall)
    for client in (local, distant):
        client.look_after()
        assert not client.flow.attached and client.reason is None
    assert near.link.closed and not far.link.closed


def test_an_open_that_nobody_answers_ends_in_time():
    rooms = Rooms()
    rooms.agent()
    client = rooms.client()
    rooms.wait(rooms.ground.config.flow.open_timeout_sec)
    client.look_after()
    assert client.reason is Reason.OPEN_TIMEOUT and len(rooms.pending) == 0
