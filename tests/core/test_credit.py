"""One flow: what it may send, how much it may hold, and how long it may last."""

from __future__ import annotations

import pytest

from core.ends import FULL_READ, KIB, TIMEOUTS, Agent, Hub, Pair, Tunnel
from core.raw import hub_and_peer, of
from core.virtual import UNLIMITED, Time
from ncfast._frames import FrameType
from ncfast.core.errors import Reason

DATA, ACK, FIN = FrameType.M_DATA, FrameType.M_ACK, FrameType.M_FIN


def test_a_slow_reader_keeps_its_window_and_a_fast_one_gets_more():
    windows = {}
    for appetite in (0, UNLIMITED):
        pair = Pair(window=64 * KIB, window_max=512 * KIB)
        pair.client.appetite = appetite
        for _ in range(60):
            pair.tunnel.session.link.ping()
            pair.agent.path.ping()
            pair.time.now += 0.05  # the round trip
            pair.tunnel.settle()
            pair.target.send(bytes(100_000 if not appetite else 400_000))
            if not appetite:
                pair.client.take(1000)
        windows[appetite] = pair.near.window
        if not appetite:
            assert pair.hub.context.backlog <= 96 * KIB  # the window, and what a transport takes before it says stop
    assert windows == {0: 64 * KIB, UNLIMITED: 512 * KIB}


def test_credit_comes_back_when_a_slow_reader_has_read():
    _, hub, peer = hub_and_peer(window=64 * KIB)
    flow, client = peer.open()
    client.appetite = 0
    peer.send(DATA, flow, payload=bytes(60_000))
    assert (flow.backlog, hub.context.backlog, flow.rcv_limit) == (60_000, 60_000, 64 * KIB)
    client.take(50_000)
    assert (flow.backlog, hub.context.backlog) == (60_000, 60_000)  # 10,000 wait: above the transport's low water
    client.take(5_000)
    assert (flow.backlog, hub.context.backlog) == (0, 0)
    assert [(frame.ack, frame.limit) for frame in of(ACK, peer.taken())][-1] == (60_000, 60_000 + 64 * KIB)


def test_nothing_is_read_beyond_the_limit():
    _, hub, peer = hub_and_peer()
    flow, client = peer.open(limit=64 * KIB)
    client.send(bytes(200_000))
    assert flow.snd_nxt == 64 * KIB and not client.reading
    peer.send(ACK, flow, ack=64 * KIB, limit=100_000)
    while hub.turns.run():
        pass
    assert flow.snd_nxt == 100_000 and not client.reading


def test_short_memory_shrinks_new_credit_and_pauses_reading():
    _, hub, peer = hub_and_peer(window=64 * KIB)
    flow, client = peer.open()
    hub.context.budget.resize(85_000)  # one segment, and no more
    client.send(bytes(30_000))
    client.send(bytes(20_000))
    assert flow.snd_nxt == 30_000 and not client.reading
    peer.send(DATA, flow, payload=bytes(60_000))
    peer.taken()
    assert flow.rcv_limit == 60_000 + 16 * KIB
    peer.send(ACK, flow, ack=30_000, limit=1 << 20)
    hub.turns.run()
    assert flow.snd_nxt == 50_000


def test_flows_that_come_at_once_share_the_memory_of_an_agent():
    """What it lets a hub send on a new flow it has said long before, whatever waits by then."""
    time = Time()
    hub, agent = Hub(time, window=256 * KIB), Agent(time, window=256 * KIB, window_max=16 << 20, budget=1 << 20)
    tunnel = Tunnel(hub, agent)
    tunnel.settle()
    clients = [hub.sockets[hub.connect().cid] for _ in range(16)]
    for client in clients:
        client.send(bytes(500_000))
    tunnel.settle()
    assert agent.context.held == 16 * FULL_READ  # while the targets are dialled
    for flow in agent.dials:
        agent.accept(flow)
        agent.sockets[flow.cid].appetite = 0
    tunnel.settle()
    assert agent.context.held <= 16 * 96 * KIB  # and what a transport takes before it says stop
    for _ in range(40):
        for flow in agent.dials:
            agent.sockets[flow.cid].take(16 * KIB)
        tunnel.settle()
        assert agent.context.held <= 16 * 96 * KIB


def test_accounts_when_a_flow_ends_amid_everything():
    _, hub, peer = hub_and_peer()
    flow, client = peer.open(limit=40_000)
    client.appetite = 0
    client.send(bytes(70_000))
    peer.send(ACK, flow, ack=10, limit=40_000)
    peer.send(DATA, flow, payload=bytes(60_000))
    client.reset()
    while hub.turns.run():
        pass
    context = hub.context
    assert context.bytes_read == 40_000 == context.bytes_out + context.discarded
    assert (context.held, peer.link.inflight, peer.link.flows) == (0, 0, {})


# time


def timed_out(flow, time, **changes):
    timeouts = type("Timeouts", (), {**vars(TIMEOUTS), **changes})
    start = time.now
    while (reason := flow.check(time.now, timeouts)) is None and time.now - start < 1000:
        time.now += 0.5
    return reason, time.now - start


def test_every_state_has_its_timer():
    time, hub, peer = hub_and_peer()
    assert timed_out(hub.connect(), time) == (Reason.OPEN_TIMEOUT, 10.0)
    flow, client = peer.open()
    assert timed_out(flow, time, idle=50.0) == (Reason.IDLE_TIMEOUT, 50.0)
    flow, client = peer.open()
    assert timed_out(flow, time, first_byte=3.0) == (Reason.FIRST_BYTE_TIMEOUT, 3.0)
    flow, client = peer.open()
    client.send(b"unanswered")
    assert timed_out(flow, time)[0] is Reason.STALLED
    flow, client = peer.open()
    peer.send(FIN, flow, seq=0)
    assert timed_out(flow, time)[0] is Reason.HALF_CLOSE_TIMEOUT
    flow, client = peer.open()
    peer.link.lost(Reason.CONNECTION_LOST)
    assert timed_out(flow, time) == (Reason.LINK_LOST, 30.0)


def test_whoever_was_told_the_end_watches_over_it():
    """The other one waits: a reader beyond may have bytes to read yet, and only its own end knows."""
    time, _, peer = hub_and_peer()
    flow, client = peer.open()
    client.fin()
    peer.taken()
    peer.send(ACK, flow, ack=1)
    assert timed_out(flow, time)[0] is None


@pytest.mark.parametrize(("bound", "expected"), [(0.0, (None, 1000.0)), (20.0, (Reason.READER_PAUSED, 20.0))])
def test_a_reader_that_pauses_behind_the_end_is_waited_for(bound, expected):
    """Unless somebody has said how long it may pause."""
    time, hub, peer = hub_and_peer()
    hub.context.reader_pause = bound
    flow, client = peer.open()
    client.appetite = 0
    peer.send(DATA, flow, payload=bytes(60_000))
    peer.send(FIN, flow, seq=60_000)
    assert flow.backlog and timed_out(flow, time) == expected


def test_a_reader_that_reads_slowly_does_not_pause():
    """What is left in the transport is asked for, since it tells of itself only when it is nearly empty."""
    time, hub, peer = hub_and_peer()
    hub.context.reader_pause = 20.0
    flow, client = peer.open()
    client.appetite = 0
    peer.send(DATA, flow, payload=bytes(60_000))
    for _ in range(40):
        client.take(100)
        time.now += 1.0
        assert flow.check(time.now, TIMEOUTS) is None
    assert flow.backlog == 60_000 - 4_000


def test_a_socket_that_is_not_read_for_lack_of_credit_has_not_fallen_silent():
    """Found by the simulation, seed 142: what it says is not heard, since the reader beyond pauses."""
    time, _, peer = hub_and_peer()
    flow, client = peer.open(limit=1000)
    peer.send(FIN, flow, seq=0)
    client.send(bytes(1000))
    peer.taken()
    peer.send(ACK, flow, ack=1000, limit=1000)
    client.send(b"more")
    assert timed_out(flow, time)[0] is None
    peer.send(ACK, flow, ack=1000, limit=2000)
    client.fin()
    assert [frame.type for frame in peer.taken()][-1] is FIN


def test_an_idle_flow_lives_as_long_as_nobody_limits_it():
    time, _, peer = hub_and_peer()
    flow, _ = peer.open()
    assert timed_out(flow, time)[0] is None
