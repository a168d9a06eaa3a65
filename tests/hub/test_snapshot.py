"""What the hub tells of itself: bounded slices of it, and numbers that agree though much comes and goes between two."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.fake_hub import whole

from hub.far import Agent
from hub.rooms import Rooms, identity
from ncfast._frames import FrameType
from ncfast.core.errors import Reason
from ncfast.hub import admin, page, snapshot
from ncfast.hub.snapshot import Snapshot
from ncfast.observe import metrics
from ncfast.observe.history import History
from ncfast.observe.metrics import Metrics
from ncfast.observe.page.view import View
from ncfast.observe.slices import spread
from ncfast.observe.totals import LinkTotals

MANY = 5000  # agents


def look(rooms: Rooms) -> Snapshot:
    edge = SimpleNamespace(address="127.0.0.1:8443")
    return Snapshot(
        rooms.ground,
        rooms.sessions,
        rooms.router,
        rooms.relays,
        rooms.ways,
        rooms.registry,
        rooms.level,
        edge,
        {},
        lambda: "",
    )


def crowd(count: int, mode: str = "off") -> tuple[Rooms, list, Snapshot]:
    rooms = Rooms(mode)
    agents = [rooms.agent(f"site-{number}", f"c{number % 3}") for number in range(count)]
    return rooms, agents, look(rooms)


@pytest.fixture(scope="module")
def many() -> Snapshot:
    rooms, _, found = crowd(MANY, "active")
    for number in range(MANY):
        rooms.elsewhere(f"other-{number}")
    return found


class Watch:
    """Counts what is looked at, and how much of it at most between two yields."""

    def __init__(self, monkeypatch):
        self.all = self.most = self._now = 0
        for place, name, weight in (
            (LinkTotals, "add", lambda args: 1),
            (Snapshot, "_agent", lambda args: 1),
            (snapshot, "_cluster_agent", lambda args: 1),
            (snapshot.Sums, "add_flows", lambda args: len(args[1]) / (snapshot.FLOWS / snapshot.AGENTS)),
        ):
            monkeypatch.setattr(place, name, self._counted(getattr(place, name), weight))

    def _counted(self, function, weight):
        def counted(*args):
            self._now += weight(args)
            return function(*args)

        return counted

    def run(self, work):
        try:
            while True:
                self._now = 0
                next(work)
                self.all += self._now
                self.most = max(self.most, self._now)
        except StopIteration as done:
            self.all += self._now
            self.most = max(self.most, self._now)
            return done.value


def hub_of(found: Snapshot) -> SimpleNamespace:
    return SimpleNamespace(snapshot=found, stats=found.ground.stats, history=History())


WORK = {
    "metrics": (lambda found: Metrics(hub_of(found)).render(), MANY),
    "status": (admin.status, 3 * MANY),  # rows here, rows of the cluster, sums
    "page": (lambda found: page.page(hub_of(found), View()), 3 * MANY),
}


@pytest.mark.parametrize("kind", WORK)
def test_a_slice_looks_at_few_agents(many, monkeypatch, kind):
    watch = Watch(monkeypatch)
    make, looked_at = WORK[kind]
    watch.run(make(many))
    assert watch.all >= looked_at  # the watch has seen the work
    assert watch.most <= 2 * snapshot.AGENTS + 2  # the end of one and the beginning of the next; two of the mesh


@pytest.mark.parametrize("kind", WORK)
def test_the_loop_turns_while_it_is_made(many, kind):
    async def main():
        turns = 0

        def tick():
            nonlocal turns
            turns += 1
            loop.call_soon(tick)

        loop = asyncio.get_running_loop()
        loop.call_soon(tick)
        await spread(WORK[kind][0](many))
        assert turns >= WORK[kind][1] / snapshot.AGENTS - 10

    asyncio.run(main())


def test_the_document_is_whole(many):
    document = json.loads(b"".join(whole(admin.status(many))))
    assert [row["agent_id"] for row in document["agents"]] == [one["agent_id"] for one in rows_of(many.agents)] and len(
        document["agents"]
    ) == MANY
    assert len(document["cluster"]["agents"]) == 2 * MANY == document["cluster"]["registry"]["agents"]
    assert document["tunnels"]["owned"] == MANY and document["tunnels"]["standby"] == 0
    assert sum(document["tunnels"]["connectors"].values()) == MANY
    _, _, alone = crowd(0)
    document = json.loads(b"".join(whole(admin.status(alone))))
    assert document["agents"] == [] and document["cluster"] is None


def test_what_ends_first_is_known():
    rooms, _, found = crowd(0)
    document = whole(found.totals())
    assert document["token_expires_sec"] is None and document["certificates"] == {}
    rooms.agent("late")
    soon = Agent(rooms, identity("soon", ttl=100.0)).claim("ldap")
    rooms.agent("later")
    rooms.ground.certificates["edge"] = rooms.ground.wall_clock() + 500
    document = whole(found.totals())
    assert document["token_expires_sec"] == pytest.approx(100, abs=1) and document["certificates"] == {"edge": 500}
    soon.lose()
    assert whole(found.totals())["token_expires_sec"] == pytest.approx(3600, abs=1)


def rows_of(agents):
    rows = []
    whole(agents(rows.extend))
    return rows


def half(work):
    """Until the middle of the work."""
    for _ in range(2):
        next(work)
    return work


FEW = 4 * snapshot.AGENTS


def test_an_agent_that_has_gone_meanwhile_has_no_row():
    _, agents, found = crowd(FEW)
    rows = []
    work = half(found.agents(rows.extend))
    seen = len(rows)
    agents[0].lose()  # was told of already
    agents[-1].lose()
    whole(work)
    assert 0 < seen < FEW and len(rows) == FEW - 1
    assert len({row["session"] for row in rows}) == FEW - 1


def test_agents_that_come_meanwhile_do_no_harm():
    rooms, _, found = crowd(FEW, "active")
    rows, cluster_rows = [], []
    work = half(found.agents(rows.extend))
    others = half(found.cluster_agents(cluster_rows.extend))
    late = [rooms.agent(f"late-{number}") for number in range(FEW)]
    rooms.elsewhere("later")
    whole(work), whole(others)
    assert len(rows) == len(cluster_rows) == FEW
    late[0].lose()
    assert whole(found.totals())["tunnels"]["owned"] == 2 * FEW - 1


def test_frames_of_a_tunnel_that_ends_meanwhile_are_counted_once():
    rooms, agents, found = crowd(FEW)
    before = whole(found.totals())["links"]
    work = half(found.totals())
    for agent in (agents[0], agents[-1]):
        agent.send(FrameType.PING)
        agent.lose()
    during = whole(work)["links"]
    after = whole(found.totals())["links"]
    for key in ("bytes_in", "bytes_out"):
        assert before[key] <= during[key] <= after[key]
    pings = [one["frames_in"].get("PING", 0) for one in (before, during, after)]
    assert pings == [0, 1, 2]  # the first tunnel was looked at before it heard one, the last one after


class Counting(Rooms):
    """Counts the ends of flows, as the hub does."""

    def flow_closed(self, flow, reason):
        flow.info.counts.closed(reason.label, flow.snd_nxt, flow.rcv_nxt)
        super().flow_closed(flow, reason)


def of_metrics(text: bytes):
    samples = [one for family in text_string_to_metric_families(text.decode()) for one in family.samples]

    def total(name):
        return sum(one.value for one in samples if one.name == f"nowconnect_{name}")

    assert total("flows_unaccounted") == 0
    return total("flows_opened_total"), total("flows_closed_total"), total("flows_active")


def of_status(parts: list[bytes]):
    flows = json.loads(b"".join(parts))["flows"]
    return flows["opened"], sum(flows["closed"].values()), flows["active"]


@pytest.mark.parametrize(
    ("make", "read"), [(lambda found: Metrics(hub_of(found)).render(), of_metrics), (admin.status, of_status)]
)
def test_flows_are_conserved_whatever_happens_between_two_slices(monkeypatch, make, read):
    monkeypatch.setattr(snapshot, "FLOWS", 2)
    monkeypatch.setattr(metrics, "SAMPLES", 1)
    rooms = Counting()
    for number in range(FEW):
        rooms.agent(f"site-{number}")
    for _ in range(8):
        rooms.client()
    work = make(look(rooms))
    turns = 0
    try:
        while True:
            next(work)
            turns += 1
            rooms.client()
            next(iter(rooms.ground.flows.values())).reset(Reason.DRAINING)
    except StopIteration as done:
        opened, closed, active = read(done.value)
    assert turns > 8
    assert opened == closed + active and closed > 0 and active > 0


def test_bytes_of_a_listener_never_go_back_whatever_happens_between_two_slices(monkeypatch):
    """Flows come, speak and end while they are added up: none is counted twice, and none is forgotten."""
    monkeypatch.setattr(snapshot, "FLOWS", 1)
    rooms = Counting()
    rooms.agent()
    found = look(rooms)

    def read() -> int:
        """What a scrape says, in whose every slice one flow ends and two come."""
        work = found.totals()
        try:
            while True:
                next(work)
                next(iter(rooms.ground.flows.values())).reset(Reason.DRAINING)
                for _ in range(2):
                    rooms.client().socket.send(b"question")
        except StopIteration as done:
            return done.value["bytes"]["listeners"]["in"]["in"]

    for _ in range(3):
        rooms.client().socket.send(b"question")
    before = 0
    for _ in range(4):
        now = read()
        assert before < now <= rooms.ground.context.bytes_read
        before = now
    assert whole(found.totals())["bytes"]["listeners"]["in"]["in"] == rooms.ground.context.bytes_read


def test_one_agent_cannot_use_up_the_names_by_which_connectors_are_counted():
    rooms = Rooms()
    for number in range(4):
        rooms.agent(f"greedy-{number}", *(f"greedy-{number}-{name}" for name in range(249)), "wanted")
    rooms.agent("site", "honest")
    sums = snapshot.Sums(LinkTotals(), frozenset({"wanted"}))
    sums.add_sessions(list(rooms.sessions))
    assert sums.connectors["honest"] == 1 and sums.connectors["wanted"] == 4
    assert sums.connectors[metrics.OTHER] == 4 * (249 - metrics.CONNECTORS)
    assert len(sums.connectors) == 4 * metrics.CONNECTORS + 3
