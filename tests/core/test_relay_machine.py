"""The two ends of test_two_ends with hubs between them that relay, drop, lose their links and their agent.

The origin's links to the hubs and the agent's tunnel are cut and come back in any order, the agent claims here and
there, the relays' queues are small. What arrives is what was sent, and at the end no hub remembers anything.
"""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from core.ends import KIB
from core.relayed import SEEK_EVERY, Cluster
from core.test_two_ends import CUTS, MAX_CHUNK, TwoEnds
from core.virtual import UNLIMITED
from ncfast.core.errors import Reason

OWNER = st.sampled_from([0, 0, 1])
KERNEL = st.sampled_from([0, 5000, 64 * KIB, 1 << 20])


class _Tunnel:
    """What the machine of two ends asks of its tunnel."""

    def __init__(self, machine):
        self.machine = machine
        self.settle = machine.cluster.settle

    @property
    def session(self):
        cluster = self.machine.cluster
        return SimpleNamespace(up=cluster.agent.up and cluster.origin.way is not None)


class ThroughRelays(TwoEnds):
    another_process_takes_over = None  # an origin has several ways: tests/upgrade shows that

    @initialize(
        raw=st.booleans(),
        max_inflight=st.sampled_from([32 * KIB, 200 * KIB, 8 << 20]),
        kernel=KERNEL,
        between=KERNEL,
        relay_inflight=st.sampled_from([20 * KIB, 100 * KIB, 8 << 20]),
        depth=st.sampled_from([2, 10, 1000]),
        window=st.sampled_from([16 * KIB, 64 * KIB, 256 * KIB]),
        other_window=st.sampled_from([16 * KIB, 64 * KIB]),
    )
    def begin(self, raw, max_inflight, kernel, between, relay_inflight, depth, window, other_window):
        self.max_inflight = max_inflight
        self.cluster = Cluster(
            raw=raw,
            origin={"max_inflight": max_inflight, "kernel": kernel, "window": window},
            owner={"max_inflight": relay_inflight, "kernel": between, "queue_depth": depth},
            agent={"max_inflight": max_inflight, "kernel": kernel, "window": other_window},
        )
        self.time = self.cluster.time
        self.hub, self.agent = self.cluster.origin, self.cluster.agent
        self.ends = self.cluster.ends
        self.tunnel = _Tunnel(self)
        self.talks = []

    # network, loops, clock

    @rule(
        which=st.integers(0, 3),
        up=st.booleans(),
        count=st.sampled_from([1, 55, 1000, 20_000, 1 << 30, 1 << 30]),
        cut=CUTS,
    )
    def network_carries(self, which, up, count, cut):
        cables = self.cluster.cables
        epoch = self.cluster.registry.epoch
        cables[which % len(cables)].carry(up, min(count, 2000 * cut), cut)
        if self.cluster.registry.epoch != epoch:
            self.hub.follow()

    @rule(up=st.booleans(), cut=CUTS)
    def all_goes_one_way(self, up, cut):
        """Whole windows come to a hub that can pass nothing on."""
        for cable in self.cluster.meshes.values():
            cable.carry(up, 2000 * cut, cut)
        self.cluster.tunnel.carry(not up, 2000 * cut, cut)

    relay_drops = relay_drops_amid_traffic_both_ways = None

    @rule(which=st.integers(0, 3))
    def loop_turns(self, which):
        self.ends[which].turns.run()

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.03, 0.03, 1.0, 1.0, 7.0, 29.0]))
    def time_passes(self, seconds):
        self.cluster.check(seconds)

    @rule(which=st.integers(0, 3), budget=st.sampled_from([0, 100_000, 1 << 30]))
    def memory_is_short(self, which, budget):
        self.ends[which].context.budget.resize(budget)

    # what is lost, and comes back

    @rule(reconnect=st.sampled_from([True, True, False]), owner=OWNER)
    def tunnel_is_cut(self, reconnect, owner=0):
        self.cluster.tunnel.cut()
        for end in self.ends:
            end.turns.run()
        if reconnect:
            self.claims(owner)

    @precondition(lambda self: self.agent.path.closed)
    @rule(owner=OWNER)
    def agent_reconnects(self, owner=0):
        self.claims(owner)

    @rule(owner=OWNER)
    def agent_moves(self, owner):
        """It claims elsewhere while its tunnel is well, or does not know yet that it is not."""
        self.claims(owner)

    def claims(self, owner):
        self.cluster.claim(self.cluster.owners[owner])
        for up in (True, False):
            self.cluster.tunnel.carry(up, 1 << 30)

    @rule(which=OWNER, reconnect=st.booleans())
    def mesh_link_is_cut(self, which, reconnect):
        self.cluster.meshes[self.cluster.owners[which]].cut()
        for end in self.ends:
            end.turns.run()
        if reconnect:
            self.mesh_link_comes(which)

    @rule(which=OWNER)
    def mesh_link_comes(self, which):
        """Anew, or in place of one that seemed well."""
        self.cluster.link(self.cluster.owners[which])
        self.hub.follow()

    @rule(which=OWNER, owner=OWNER)
    def both_are_cut(self, which, owner):
        self.cluster.meshes[self.cluster.owners[which]].cut()
        self.tunnel_is_cut(True, owner)
        self.mesh_link_comes(which)

    @rule(which=OWNER, reason=st.sampled_from([Reason.GOING_AWAY, Reason.STALLED]))
    def owner_ends_its_links(self, which, reason):
        owner = self.cluster.owners[which]
        for handler in (owner.current, owner.up):
            if handler is not None:
                handler.link.fail(reason)

    # what always holds

    @invariant()
    def accounts_are_right(self):
        for end in getattr(self, "ends", ()):
            context, flows = end.context, end.flows.values()
            left = sum(socket.protocol.left for socket in end.sockets.values())  # their flows are over
            assert context.backlog == sum(flow.backlog for flow in flows) + left
            assert context.bytes_read == context.bytes_out + context.discarded + sum(
                flow.unsent_bytes + flow.inflight for flow in flows
            ), "bytes were lost or made"
            for cid, reasons in end.reasons.items():
                assert len(reasons) == 1, "ended twice"
                assert cid not in end.flows
        for end, links in (
            ((self.hub, [way.link for way in self.hub.ways.values()]), (self.agent, [self.agent.path]))
            if hasattr(self, "ends")
            else ()
        ):
            for link in links:
                assert link.inflight == sum(flow.inflight for flow in end.flows.values() if flow.path is link)
                assert link.inflight < link.max_inflight + MAX_CHUNK
            for flow in end.flows.values():
                assert not flow.attached or flow.path.flows.get(flow.cid) is flow, "on a link that does not know it"

    @invariant()
    def relays_are_within_their_bounds(self):
        for owner in self.cluster.owners if hasattr(self, "cluster") else ():
            assert owner.context.relayed == sum(link.relay_bytes + link.answer_bytes for link in owner.links), (
                "what waits is not what was counted"
            )
            for link in owner.links:
                assert link.relay_bytes <= 2 * owner.max_inflight + 800 * len(self.talks)
                assert link.relay_frames <= owner.queue_depth + 3 * len(self.talks)
                assert not link.closed or link.relay_frames == 0

    # the end

    def rest(self, rounds=40):
        for _ in range(rounds):
            self.cluster.settle()
            self.time.now += 0.03
            for end in self.ends:
                end.turns.run()
        self.cluster.settle()
        self.bytes_are_those_sent()
        self.limits_hold()
        self.accounts_are_right()

    def teardown(self):
        if not hasattr(self, "talks"):
            return
        cluster = self.cluster
        for end in self.ends:
            end.context.budget.resize(1 << 30)
            end.queue_depth = 1000
            end.max_inflight = 8 << 20
        cluster.settle()
        for owner in cluster.owners:
            if cluster.origin.ways[owner].link.closed or owner.up.link.closed:
                cluster.link(owner)
        if (
            self.agent.path.closed
            or cluster.registry.owner.current is None
            or cluster.registry.owner.current.link.closed
        ):
            self.claims(0)
        for talk in self.talks:
            for transport in (talk.client, talk.target):
                if transport is not None:
                    transport.take(UNLIMITED)
        for _ in range(3):
            self.rest()
            cluster.check(SEEK_EVERY)
            cluster.settle()
            while self.agent.dials:
                self.answer(self.agent.dials.pop(0))
                cluster.settle()
        self.rest()
        for talk in self.talks:
            for half in (talk.up, talk.down):
                if half.source is not None and half.sink is not None and not half.source.lost and not half.sink.lost:
                    assert half.verified == half.sent or not self.whole(talk), "bytes are stuck"
                if half.source is not None and not half.source.lost and not half.fin:
                    half.fin = True
                    half.source.fin()
        self.rest()
        for talk in self.talks:
            assert not self.whole(talk) or talk.near.closed and talk.far.closed, "a flow does not end"
        for _ in range(11):  # the grace of those that only one end still has
            cluster.check(3.0)
            cluster.settle()
        self.rest()
        for end in self.ends:
            self.nothing_is_left(end)
        for talk in self.talks:
            self.ended_as_it_should(talk)

    def whole(self, talk):
        """Both ends had the flow when all was let go: nothing that was sent may be missing."""
        reasons = self.hub.reasons.get(talk.cid, []) + self.agent.reasons.get(talk.cid, [])
        return talk.far is not None and set(reasons) <= {Reason.CLOSED}

    def nothing_is_left(self, end):
        context = end.context
        assert not end.flows, "a flow is left"
        assert (context.pool.held, context.pool.in_use, context.backlog, context.relayed) == (0, 0, 0, 0)
        assert context.bytes_read == context.bytes_out + context.discarded
        assert not getattr(end, "relays", None), "a relay is left"
        for link in self.cluster.links():
            if link.ctx is context and not link.closed:
                assert not link.flows and not link.lanes and link.inflight == 0 and link.queued == 0
                assert (link.relay_frames, link.relay_bytes) == (0, 0)
        self.time.now += 10.0  # lingering sockets close
        end.turns.run()
        end.turns.run()
        assert all(transport.lost for transport in end.sockets.values()), "a socket is left"


ThroughRelays.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=80,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
TestThroughRelays = ThroughRelays.TestCase
