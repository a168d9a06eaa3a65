"""The cached view, the records it is fed with, the breaker, the sweeper: without Redis and without waiting."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfast.registry import AgentEntry, Replica, View
from ncfast.registry.breaker import LONGEST_PAUSE, Breaker, BreakerState
from ncfast.registry.entry import body_of, read_agent, read_replica, replica_body
from ncfast.registry.redis.registry import Presence
from ncfast.registry.redis.sweeper import RegistrySweeper


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def agent(key="/site", owner="hub-a", epoch=1, connectors=("ldap",), **more):
    return AgentEntry(
        key, owner, epoch, "aa", frozenset(connectors), 4096, owner_instance=more.pop("process", f"p-{owner}"), **more
    )


def hub(name="hub-a", **more):
    return Replica(name, more.pop("process", f"p-{name}"), f"tcp://{name}:7000", **more)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def view(clock):
    return View(clock, 5.0)


# freshness


def test_fresh_only_while_the_registry_confirms(view, clock):
    assert not view.fresh
    view.confirm()
    assert view.fresh and view.age == 0
    clock.now += 5.1  # as after SIGSTOP and SIGCONT
    assert not view.fresh and view.age == pytest.approx(5.1)
    view.confirm()
    view.doubt()
    assert not view.fresh
    view.confirm()
    assert view.fresh


def test_the_last_view_is_as_it_was_for_as_long_as_the_registry_is_away(view, clock):
    view.put(agent())
    view.set_replicas([(hub(), 5000, 5000)])
    assert not view.complete, "there may be more"
    view.confirm()
    view.doubt()
    clock.now += 86_400
    assert view.complete and not view.fresh
    assert view.routes(None, "ldap") == [agent()]


# routes


def test_routes_want_a_live_owner_that_stays(view):
    view.put(agent())
    assert view.routes(None, "ldap") == []  # nobody has heard of its owner
    view.set_replicas([(hub(), 5000, 5000)])
    assert view.routes(None, "ldap") == [agent()]
    assert view.routes("acme", "ldap") == view.routes(None, "sql") == []
    view.set_replicas([(hub(draining=True), 5001, 5000)])
    assert view.routes(None, "ldap") == []
    view.set_replicas([(hub(process="its next life"), 5002, 5000)])
    assert view.routes(None, "ldap") == []  # an entry of a process that is gone


AGENTS = st.builds(
    agent,
    key=st.sampled_from(["/a", "/b", "acme/a", "acme/b"]),
    owner=st.sampled_from(["hub-a", "hub-b"]),
    epoch=st.integers(1, 3),
    connectors=st.frozensets(st.sampled_from(["ldap", "sql"])),
    draining=st.booleans(),
    process=st.sampled_from(["p1", "p2"]),
)
HUBS = st.lists(
    st.builds(
        hub, name=st.sampled_from(["hub-a", "hub-b"]), process=st.sampled_from(["p1", "p2"]), draining=st.booleans()
    ),
    unique_by=lambda one: one.replica_id,
    max_size=2,
)


@given(st.lists(st.one_of(AGENTS, st.sampled_from(["/a", "acme/a"]), HUBS), max_size=30))
def test_routes_are_what_a_search_finds(steps):
    view, agents, hubs = View(Clock(), 5.0), {}, {}
    for number, step in enumerate(steps):
        if isinstance(step, AgentEntry):
            assert view.put(step) == (agents.get(step.key) != step)
            agents[step.key] = step
        elif isinstance(step, str):
            assert view.drop(step) == agents.pop(step, None)
        else:
            new = {one.replica_id: one for one in step}
            assert view.set_replicas([(one, number, 1) for one in step]) == (new != hubs)
            hubs = new
        for tenant in (None, "acme"):
            for connector in ("ldap", "sql"):
                found = {one.key for one in view.routes(tenant, connector)}
                wanted = {
                    key
                    for key, one in agents.items()
                    if one.tenant == tenant
                    and connector in one.connectors
                    and not one.draining
                    and (owner := hubs.get(one.owner)) is not None
                    and owner.instance == one.owner_instance
                    and not owner.draining
                }
                assert found == wanted
    assert dict(view.agents) == agents and dict(view.replicas) == hubs


# leases


def test_a_replica_lives_while_its_lease_changes(view, clock):
    end = 5000
    for _ in range(10):
        assert view.set_replicas([(hub(), end, 5000)]) == (end == 5000)
        end += 1500
        clock.now += 1.5
    clock.now += 4.0
    assert view.set_replicas([(hub(), end - 1500, -500)])  # not renewed for more than a lease
    assert not view.replicas


def test_a_step_of_the_servers_clock_makes_nobody_vanish(view, clock):
    view.set_replicas([(hub(), 5000, 5000)])
    for step in (60_000, -60_000, 3_600_000):
        clock.now += 1.5
        view.set_replicas([(hub(), 6500 + step, -55_000)])
        assert view.replicas
    clock.now += 5.1  # and a dead one goes, though its lease lies in the future
    view.set_replicas([(hub(), 6500 + 3_600_000, 3_000_000)])
    assert not view.replicas


def test_of_a_replica_never_seen_the_servers_clock_decides(view):
    view.set_replicas([(hub(), 5000, -1), (hub("hub-b"), 5000, 1)])
    assert set(view.replicas) == {"hub-b"}


def test_an_outage_of_the_registry_is_no_fault_of_replicas(view, clock):
    view.set_replicas([(hub(), 5000, 5000)])
    clock.now += 60
    view.hold_leases()
    view.set_replicas([(hub(), 5000, -55_000)])
    assert view.replicas
    clock.now += 5.1
    view.set_replicas([(hub(), 5000, -60_000)])
    assert not view.replicas


def test_replicas_that_a_registry_has_lost_may_be_kept(view):
    view.set_replicas([(hub(), 5000, 5000), (hub("hub-b"), 5000, 5000)])
    assert not view.set_replicas([(hub("hub-b"), 6000, 5000)], keep=True)
    assert set(view.replicas) == {"hub-a", "hub-b"}
    assert view.set_replicas([(hub("hub-b"), 7000, 5000)])
    assert set(view.replicas) == {"hub-b"}


# records


def record(entry):
    return b"%d\n%s\n%s\n%s" % (entry.epoch, entry.owner.encode(), entry.owner_instance.encode(), body_of(entry))


@given(AGENTS)
def test_agents_are_read_as_written(entry):
    assert read_agent(entry.key, record(entry)) == entry


@given(st.binary(max_size=200))
def test_no_record_raises(junk):
    read_agent("/a", junk)
    read_agent("/a", b"7\nhub\np\n" + junk)
    read_replica("a", junk)
    read_replica("a", b"p\n1\n" + junk)


def test_garbled_records_read_as_none():
    good = record(agent())
    assert read_agent("/site", good)
    for bad in (
        good.replace(b"1\n", b"-1\n", 1),
        good.replace(b'["ldap"]', b'"ldap"'),
        good.replace(b"4096", b"true"),
        b"",
        good[:-1],
        good.replace(b'"aa"', b"7"),
    ):
        assert read_agent("/site", bad) is None
    assert read_agent("site", good) is None
    one = replace(hub(draining=True), weight=7)
    assert read_replica("hub-a", b"p-hub-a\n17\n" + replica_body(one)) == one
    for weight in (b"-7", b"true", b'"7"'):
        assert read_replica("hub-a", b"p-hub-a\n17\n" + replica_body(one).replace(b"7}", weight + b"}")) is None


def test_a_replica_of_an_older_version_has_the_weight_of_all_others():
    old = b'p-hub-a\n17\n{"mesh_url":"","draining":false}'
    assert read_replica("hub-a", old) == Replica("hub-a", "p-hub-a", weight=100)


# the breaker


def test_breaker_lets_one_probe_through_at_a_time(clock):
    breaker = Breaker(clock, random.Random(1))
    assert breaker.closed and not breaker.probe()
    breaker.failed()
    assert breaker.state is BreakerState.OPEN and breaker.opened_at == clock.now
    assert not breaker.probe()  # not yet
    clock.now = breaker.probe_at
    assert breaker.probe() and breaker.state is BreakerState.HALF_OPEN
    assert not breaker.probe()  # one is on its way
    breaker.succeeded()
    assert breaker.closed


def test_breaker_pauses_grow_to_a_bound_and_are_spread(clock):
    rng = random.Random(1)
    last = []
    for _ in range(50):
        breaker, pauses = Breaker(clock, rng), []
        for _ in range(12):
            breaker.failed()
            pauses.append(breaker.probe_at - clock.now)
            clock.now = breaker.probe_at
            assert breaker.probe()
        assert pauses[0] <= 0.1 and all(0.04 < pause <= LONGEST_PAUSE + 1e-9 for pause in pauses)
        last.append(pauses[-1])
        breaker.succeeded()
        breaker.failed()
        assert breaker.probe_at - clock.now <= 0.1  # success forgets
    assert min(last) < 0.6 * LONGEST_PAUSE < 0.9 * LONGEST_PAUSE < max(last)


# the sweeper


class Swept:
    """A registry's picture, as a sweeper sees it."""

    def __init__(self, view):
        self.view = view
        self.presences = {}
        self.healthy = True

    def is_healthy(self):
        return self.healthy

    def send(self, calls):
        raise AssertionError("rounds are played by hand")

    def lease(self, one, ends, left):
        self.presences[one.replica_id] = Presence(one, ends, left)


class NetOfTests:
    rng = random.Random(1)


@pytest.fixture
def swept(view):
    return Swept(view)


@pytest.fixture
def sweeper(swept):
    return RegistrySweeper(swept, NetOfTests(), 5.0)


def pruned(sweeper):
    return [(call.script.name, *call.arguments) for call in sweeper.round() if call.script.name != "tidy"]


def test_two_strikes(swept, sweeper):
    swept.lease(hub(), 5000, -1)
    swept.lease(hub("hub-b"), 9000, 4000)
    swept.view.put(agent())
    swept.view.put(agent("/mine", "hub-b"))
    assert pruned(sweeper) == []
    assert pruned(sweeper) == [
        ("prune_replica", "hub-a", "p-hub-a", "5000"),
        ("prune_agent", "/site", "hub-a", "p-hub-a", "1"),
    ]


def test_what_changes_between_strikes_is_alive(swept, sweeper):
    for ends in (5000, 6500, 8000):  # renewed, though the server's clock says it is late
        swept.lease(hub(), ends, -1)
        assert pruned(sweeper) == []
    swept = swept
    swept.presences.clear()
    swept.view.put(agent(epoch=1))
    assert pruned(sweeper) == []
    swept.view.put(agent(epoch=2))  # claimed anew
    assert pruned(sweeper) == []


def test_entries_of_a_former_process_go(swept, sweeper):
    swept.lease(hub(process="new"), 9000, 4000)
    swept.view.put(agent())
    assert pruned(sweeper) == []
    assert pruned(sweeper) == [("prune_agent", "/site", "hub-a", "p-hub-a", "1")]


def test_an_outage_clears_the_strikes(swept, sweeper):
    swept.view.put(agent())
    assert pruned(sweeper) == []
    swept.healthy = False
    assert sweeper.round() == []
    swept.healthy = True
    assert pruned(sweeper) == []
    assert len(pruned(sweeper)) == 1


def test_a_live_owners_entries_stay(swept, sweeper):
    swept.lease(hub(), 9000, 4000)
    swept.view.put(replace(agent(), draining=True))
    for _ in range(5):
        assert pruned(sweeper) == []
