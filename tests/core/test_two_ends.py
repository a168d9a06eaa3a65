"""Two ends, a wire between them, and everything that can happen: what arrives is what was sent, or the end says
otherwise.

Each step is one thing that a client, a target, the network, the kernel or the clock does. After each the invariants
hold; at the end everything is let go, and then nothing may be left anywhere.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.ends import KIB, RESUME_TIME, Agent, Hub, Tunnel, stream
from core.raw import frames
from core.virtual import UNLIMITED, Time
from ncfast._frames import FrameType
from ncfast.core.errors import Reason

SIZES = st.sampled_from([1, 128, 4097, 16384, 16385, 40_000, 65_536, 100_000, 100_000, 250_000])
PICK = st.integers(0, 5)
CUTS = st.sampled_from([1 << 30, 1 << 30, 65_536, 4096, 61, 7])
MAX_CHUNK = 64 * KIB


class Half:
    """One direction of a conversation: what its source wrote and its sink received."""

    def __init__(self, seed):
        self.seed = seed
        self.source = self.sink = None  # Sockets
        self.sent = 0
        self.verified = 0
        self.fin = self.reset = False  # done by the source, as seen from outside

    def write(self, count):
        if not self.fin and not self.source.lost:
            self.source.send(stream(self.seed, self.sent, count))
            self.sent += count

    def verify(self):
        if self.sink is None:
            return
        got = bytes(self.sink.received[self.verified :])
        assert self.verified + len(got) <= self.sent, "more arrived than was sent"
        assert got == stream(self.seed, self.verified, len(got)), "other bytes arrived than were sent"
        self.verified += len(got)
        if self.sink.saw_eof:
            assert self.fin and self.verified == self.sent, "an end of stream before the end"


class Talk:
    """One client and its target."""

    def __init__(self, flow, client, number):
        self.cid = flow.cid
        self.near = flow
        self.far = None
        self.client = client
        self.target = None
        self.up, self.down = Half(2 * number), Half(2 * number + 1)
        self.up.source = self.down.sink = client

    def connected(self, flow, target):
        self.far, self.target = flow, target
        self.up.sink = self.down.source = target

    def verify(self):
        self.up.verify()
        self.down.verify()


class TwoEnds(RuleBasedStateMachine):
    @initialize(
        max_inflight=st.sampled_from([32 * KIB, 200 * KIB, 8 << 20]),
        kernel=st.sampled_from([0, 5000, 64 * KIB, 1 << 20]),
        window=st.sampled_from([16 * KIB, 64 * KIB, 256 * KIB]),
        other_window=st.sampled_from([16 * KIB, 64 * KIB]),
    )
    def begin(self, max_inflight, kernel, window, other_window):
        self.time = Time()
        self.max_inflight = max_inflight
        self.hub = Hub(self.time, max_inflight=max_inflight, kernel=kernel, window=window)
        self.agent = Agent(self.time, max_inflight=max_inflight, kernel=kernel, window=other_window)
        self.ends = (self.hub, self.agent)
        self.talks = []
        self.past = []  # processes that others have taken over from
        self.dropped = False
        self.tunnel = Tunnel(self.hub, self.agent)
        self.tunnel.settle()

    # clients and targets

    @precondition(lambda self: len(self.talks) < 6)
    @rule()
    def client_comes(self):
        flow = self.hub.connect()
        self.talks.append(Talk(flow, self.hub.sockets[flow.cid], len(self.talks)))

    @precondition(lambda self: len(self.talks) < 6 and self.tunnel.session.up)
    @rule()
    def client_is_served(self):
        self.client_comes()
        self.tunnel.settle()
        self.target_answers(False)

    @precondition(lambda self: self.agent.dials)
    @rule(refuse=st.sampled_from([False] * 7 + [True]))
    def target_answers(self, refuse):
        while self.agent.dials:
            self.answer(self.agent.dials.pop(0), refuse)

    def answer(self, flow, refuse=False):
        talk = next(one for one in self.talks if one.cid == flow.cid)
        if refuse:
            flow.reset(Reason.TARGET_REFUSED)
        elif not flow.closed:
            self.agent.accept(flow)
            talk.connected(flow, self.agent.sockets[flow.cid])

    def pick(self, which, side):
        """A talk, and the half that `side` (client: True) writes; None if there is none."""
        if not self.talks:
            return None
        talk = self.talks[which % len(self.talks)]
        half = talk.up if side else talk.down
        return half if half.source is not None else None

    @rule(which=PICK, client=st.booleans(), size=SIZES)
    def writes(self, which, client, size):
        if half := self.pick(which, client):
            half.write(size)

    @rule(which=PICK, client=st.booleans())
    def ends_its_direction(self, which, client):
        half = self.pick(which, client)
        if half and not half.source.lost and not half.fin:
            half.fin = True
            half.source.fin()

    @rule(which=PICK, client=st.booleans(), maybe=st.sampled_from([True, False, False]))
    def resets(self, which, client, maybe):
        half = self.pick(which, client)
        if maybe and half and not half.source.lost:
            half.reset = True
            half.source.reset()

    @rule(which=PICK, client=st.booleans(), appetite=st.sampled_from([0, 0, 100, 50_000, UNLIMITED]))
    def reads_at_most(self, which, client, appetite):
        if half := self.pick(which, client):
            half.source.appetite = appetite
            half.source.take(0)

    # network, loop, clock

    @rule(up=st.booleans(), count=st.sampled_from([1, 55, 1000, 20_000, 1 << 30, 1 << 30]), cut=CUTS)
    def network_carries(self, up, count, cut):
        self.tunnel.carry(up, min(count, 2000 * cut), cut)

    @rule(up=st.booleans())
    def relay_drops(self, up):
        """A relay under pressure may drop a frame of data: a gap, which costs time and no byte."""
        wire = self.agent.wire if up else self.tunnel.session.wire
        lost = wire.next_message()
        if {frame.type for frame in frames(lost)} == {FrameType.M_DATA}:
            wire.take(len(lost))
            self.dropped = True

    @rule(which=st.sampled_from([0, 1]))
    def loop_turns(self, which):
        self.ends[which].turns.run()

    @rule()
    def all_comes_to_rest(self):
        self.tunnel.settle()

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.03, 0.03, 1.0, 1.0, 7.0, 29.0]))
    def time_passes(self, seconds):
        self.time.now += seconds
        for end in self.ends:
            end.turns.run()
            end.check(self.time.now)
        self.tunnel.session.link.tick(self.time.now, 5.0, 15.0, 30.0)
        self.agent.path.tick(self.time.now, 5.0, 15.0, 30.0)

    @rule(reconnect=st.sampled_from([True, True, False]))
    def tunnel_is_cut(self, reconnect):
        self.tunnel.cut()
        for end in self.ends:
            end.turns.run()
        if reconnect:
            self.agent_reconnects()

    @rule(client=st.booleans())
    def another_process_takes_over(self, client):
        before = self.agent if client else self.hub
        self.tunnel_is_cut(False)
        after = before.successor()
        context = before.context
        assert not before.flows and (context.live, context.windows, context.pool.held) == (0, 0, 0)
        assert context.bytes_read == context.bytes_out + context.discarded
        if client:
            self.agent = after
        else:
            self.hub = after
        self.ends = (self.hub, self.agent)
        self.past.append(before)
        self.tunnel = Tunnel(self.hub, self.agent)
        self.tunnel.carry(True, 1 << 30)
        self.tunnel.carry(False, 1 << 30)

    # two that would take many steps of the above to come about

    @precondition(lambda self: len(self.talks) < 6 and self.tunnel.session.up)
    @rule(sizes=st.lists(SIZES, min_size=1, max_size=3))
    def tunnel_is_cut_while_the_target_is_dialled(self, sizes):
        """What the client said has arrived, is not acknowledged, and comes again."""
        self.client_comes()
        for size in sizes:
            self.talks[-1].up.write(size)
        self.tunnel.settle()
        self.tunnel_is_cut(True)

    @rule(which=PICK, up=st.booleans(), size=SIZES)
    def relay_drops_amid_traffic_both_ways(self, which, up, size):
        """Whoever misses a frame asks for it while its own are on their way; those come twice."""
        for client in (True, False):
            self.writes(which, client, size)
        self.relay_drops(up)
        for client in (True, False):
            self.writes(which, client, 128)
        self.tunnel.carry(up, 1 << 30)
        for client in (True, False):
            self.writes(which, client, size)
        self.tunnel.carry(not up, 1 << 30)

    @precondition(lambda self: self.agent.path.closed)
    @rule()
    def agent_reconnects(self):
        self.tunnel.session.link.fail(Reason.SUPERSEDED)
        self.tunnel = Tunnel(self.hub, self.agent)
        self.tunnel.carry(True, 1 << 30)
        self.tunnel.carry(False, 1 << 30)

    @rule(which=st.sampled_from([0, 1]), budget=st.sampled_from([0, 100_000, 1 << 19, 1 << 30]))
    def memory_is_short(self, which, budget):
        self.ends[which].context.budget.resize(budget)

    # what always holds

    @invariant()
    def bytes_are_those_sent(self):
        for talk in getattr(self, "talks", ()):
            talk.verify()

    @invariant()
    def limits_hold(self):
        for end, other in ((self.hub, self.agent), (self.agent, self.hub)) if hasattr(self, "ends") else ():
            for cid, flow in end.flows.items():
                assert flow.rcv_nxt <= flow.rcv_limit
                assert flow.window <= end.context.window_max
                assert flow.snd_una <= flow.snd_max + 1 and flow.snd_max <= flow.snd_nxt
                transport = end.sockets.get(cid)
                if transport is not None and not transport.paused:
                    assert flow.backlog == 0, "credit for what the socket has taken is kept back"
                peer = other.flows.get(cid)
                if peer is not None and flow.snd_max:
                    assert flow.snd_max <= flow.snd_limit <= peer.rcv_limit, "sent past what was granted"

    @invariant()
    def accounts_are_right(self):
        for end in getattr(self, "ends", ()):
            context, flows = end.context, end.flows.values()
            left = sum(socket.protocol.left for socket in end.sockets.values())  # of flows that are over
            assert context.backlog == sum(flow.backlog for flow in flows) + left
            assert sum(share.held for share in end.shares) == context.held
            assert context.budget.lent == sum(max(0, share.held - share.own) for share in end.shares)
            assert context.bytes_read == context.bytes_out + context.discarded + sum(
                flow.unsent_bytes + flow.inflight for flow in flows
            ), "bytes were lost or made"
            link = self.agent.path if end is self.agent else self.tunnel.session.link
            assert link.inflight == sum(flow.inflight for flow in flows if flow.path is link)
            assert link.inflight < self.max_inflight + MAX_CHUNK
            assert self.dropped or context.gaps == 0, "frames came out of order"
            for cid, reasons in end.reasons.items():
                assert len(reasons) == 1, "ended twice"
                assert cid not in end.flows

    # the end

    def progress(self):
        """What nobody takes back: it grows for as long as anything moves."""
        return sum(flow.snd_una + flow.rcv_nxt for end in self.ends for flow in end.flows.values())

    def rest(self):
        """Until acknowledgements that wait for company have gone, and what waited for them: under a small cap of bytes
        in flight that is a little at a time."""
        quiet = 0
        while quiet < 40:
            before = self.progress()
            self.tunnel.settle()
            self.time.now += 0.03
            for end in self.ends:
                end.turns.run()
            quiet = quiet + 1 if self.progress() == before else 0
        self.tunnel.settle()
        self.bytes_are_those_sent()
        self.limits_hold()
        self.accounts_are_right()

    def teardown(self):
        if not hasattr(self, "talks"):
            return
        for end in self.ends:
            end.context.budget.resize(1 << 30)
        self.tunnel.settle()
        if self.dropped:  # the last frame of all may be missing: nothing but time would tell
            self.tunnel_is_cut(False)
        if self.agent.path.closed or self.tunnel.session.link.closed:
            self.agent.path.fail(Reason.GOING_AWAY)
            self.tunnel.settle()
            self.agent_reconnects()
        for talk in self.talks:
            for transport in (talk.client, talk.target):
                if transport is not None:
                    transport.take(UNLIMITED)
        self.rest()
        self.time.now += RESUME_TIME
        self.hub.check(self.time.now)
        self.tunnel.settle()
        while self.agent.dials:
            self.answer(self.agent.dials.pop(0))
            self.tunnel.settle()
        for end in self.ends:  # who found no memory is told by the next look that there is some
            end.check(self.time.now)
        self.rest()
        for talk in self.talks:
            for half in (talk.up, talk.down):
                if half.source is not None and half.sink is not None and not half.source.lost and not half.sink.lost:
                    assert half.verified == half.sent, "bytes are stuck"
                if half.source is not None and not half.source.lost and not half.fin:
                    half.fin = True
                    half.source.fin()
        self.rest()
        for end in self.ends:
            self.nothing_is_left(end)
        for end in self.past:
            assert (end.context.pool.held, end.context.backlog, end.context.share.held) == (0, 0, 0)
            assert all(transport.lost for transport in end.sockets.values()), "a socket is left"
        for talk in self.talks:
            self.ended_as_it_should(talk)

    def nothing_is_left(self, end):
        context = end.context
        assert not end.flows, "a flow is left"
        assert (context.pool.held, context.pool.in_use, context.backlog) == (0, 0, 0)
        assert context.bytes_read == context.bytes_out + context.discarded
        link = self.agent.path if end is self.agent else self.tunnel.session.link
        assert not link.closed and not link.flows and link.inflight == 0 and link.queued == 0
        self.time.now += 70.0  # lingering sockets close
        end.turns.run()
        end.turns.run()
        assert all(transport.lost for transport in end.sockets.values()), "a socket is left"

    def ended_as_it_should(self, talk):
        reasons = self.hub.reasons[talk.cid] + self.agent.reasons.get(talk.cid, [])
        if any(half.reset for half in (talk.up, talk.down)) or set(reasons) != {Reason.CLOSED}:
            assert talk.client.saw_reset or talk.client.saw_eof or talk.client.lost
            return
        for half in (talk.up, talk.down):
            if half.sink.reaped:
                assert half.sink.saw_reset and not half.sink.saw_eof
            else:
                assert half.verified == half.sent and half.sink.saw_eof and not half.sink.saw_reset


TwoEnds.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=80,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
TestTwoEnds = TwoEnds.TestCase
