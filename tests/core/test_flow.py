"""One flow: order, ends, replays."""

from __future__ import annotations

import pytest

from core.ends import FULL_READ, KIB, TIMEOUTS, Agent, Hub, Pair, Tunnel, stream
from core.raw import Peer, hub_and_peer, of
from core.virtual import UNLIMITED, Time
from ncfast._frames import FrameType
from ncfast.core.errors import Reason

DATA, ACK, FIN, RST = FrameType.M_DATA, FrameType.M_ACK, FrameType.M_FIN, FrameType.M_RST
RESUME, RESUME_ACK = FrameType.M_RESUME, FrameType.M_RESUME_ACK


# ends


def test_fin_stays_behind_the_data_and_says_where_it_ends():
    _, _, peer = hub_and_peer()
    flow, client = peer.open(limit=1000)
    client.send(stream(0, 0, 5000))
    client.fin()
    seen, limit = [], 1000
    while not of(FIN, seen):
        seen += peer.taken()
        limit += 1500
        peer.send(ACK, flow, ack=sum(len(frame.payload) for frame in of(DATA, seen)), limit=limit)
    assert seen[-1].type is FIN and seen[-1].seq == 5000
    assert b"".join(frame.payload for frame in of(DATA, seen)) == stream(0, 0, 5000)
    assert [frame.seq + len(frame.payload) for frame in of(DATA, seen)] <= [1000, 2500, 4000, 5000]


def test_fin_waits_while_the_links_cap_holds_the_data():
    _, _, peer = hub_and_peer(max_inflight=1000)
    flow, client = peer.open(limit=1 << 20)
    client.send(stream(0, 0, 1000))
    client.send(stream(0, 1000, 1000))
    client.fin()
    assert [(frame.type, frame.seq) for frame in peer.taken()] == [(DATA, 0)]
    peer.send(ACK, flow, ack=1000, limit=1 << 20)
    assert [(frame.type, frame.seq) for frame in peer.taken()] == [(DATA, 1000), (FIN, 2000)]


@pytest.mark.parametrize("order", ["client first", "target first"])
def test_half_close_leaves_the_other_direction_open(order):
    pair = Pair()
    first, second = (pair.client, pair.target) if order == "client first" else (pair.target, pair.client)
    first.send(b"a question")
    first.fin()
    pair.rest()
    assert second.received == b"a question" and second.saw_eof and not first.saw_eof
    second.send(stream(1, 0, 300_000))
    second.fin()
    pair.rest()
    pair.rest()
    assert first.received == stream(1, 0, 300_000) and first.saw_eof
    assert pair.hub.reasons == pair.agent.reasons == {pair.near.cid: [Reason.CLOSED]}


def test_reset_after_the_end_keeps_the_whole_body():
    """The target's answer is complete; that it then resets is tidying up, and must not cost a byte of what waits."""
    pair = Pair()
    pair.client.appetite = 1000
    pair.target.send(stream(0, 0, 60_000))
    pair.target.fin()
    pair.target.reset()
    pair.rest()
    assert len(pair.client.received) == 1000 and not pair.client.saw_reset
    pair.client.take(UNLIMITED)
    pair.rest()
    assert pair.client.received == stream(0, 0, 60_000) and pair.client.saw_eof and not pair.client.saw_reset


@pytest.mark.parametrize("sent", [0, 1, 60_000])
def test_reset_amid_the_body_is_seen_as_a_reset(sent):
    pair = Pair()
    pair.target.send(stream(0, 0, sent))
    pair.rest()
    pair.target.reset()
    pair.rest()
    assert pair.client.saw_reset and not pair.client.saw_eof
    assert pair.hub.reasons == pair.agent.reasons == {pair.near.cid: [Reason.TARGET_RESET]}


def test_reset_does_not_wait_for_credit_for_long():
    pair = Pair(window=16 * KIB)
    pair.client.appetite = 0
    pair.target.send(stream(0, 0, 200_000))
    pair.rest()
    pair.target.reset()
    pair.rest()
    assert not pair.client.saw_reset  # the bytes before it may still find room
    for _ in range(8):
        pair.rest(0.5)
        pair.agent.check(pair.time.now)
    for _ in range(300):  # nor for a client that takes nothing
        pair.rest(0.01)
    assert pair.client.saw_reset and pair.hub.context.held == pair.agent.context.held == 0


def test_a_reset_that_waits_behind_the_end_ends_the_flow_once():
    """Our end is acknowledged in the very turn in which the reset behind it was about to leave."""
    _, hub, peer = hub_and_peer()
    flow, client = peer.open()
    client.fin()
    peer.taken()
    peer.send(FIN, flow, seq=0)
    hub.turns.run()
    for _ in range(20):  # a busy link: what follows waits for the end of the turn
        peer.open()[1].send(b"x")
    client.reset()
    hub.turns.soon.pop()[0](None)  # the loss is told before the turn ends
    peer.send(ACK, flow, ack=1, limit=64 * KIB)
    assert hub.reasons[flow.cid] == [Reason.CLOSED]
    assert not of(RST, peer.taken()) and hub.reasons[flow.cid] == [Reason.CLOSED]


def test_an_end_that_says_less_than_was_sent_breaks_the_flow():
    _, hub, peer = hub_and_peer()
    flow, client = peer.open()
    peer.send(DATA, flow, payload=b"x" * 10)
    peer.send(FIN, flow, seq=9)
    assert hub.reasons[flow.cid] == [Reason.FLOW_CONTROL] and client.saw_reset and not client.saw_eof


def test_data_behind_the_end_breaks_the_flow():
    _, hub, peer = hub_and_peer()
    flow, client = peer.open()
    peer.send(FIN, flow, seq=0)
    peer.send(DATA, flow, payload=b"x")
    assert hub.reasons[flow.cid] == [Reason.FLOW_CONTROL] and client.received == b""


@pytest.mark.parametrize("first", ["bytes", "end"])
def test_what_comes_from_the_target_says_that_it_is_connected(first):
    """A relay without a way to the hub drops M_OPEN_ACK like all else."""
    _, hub, peer = hub_and_peer()
    flow = hub.connect()
    client = hub.sockets[flow.cid]
    peer.taken()
    if first == "bytes":
        peer.send(DATA, flow, payload=b"hello")
    else:
        peer.send(FIN, flow, seq=0)
    assert not flow.opening and client.received == b"hello" * (first == "bytes") and client.saw_eof is (first == "end")


def test_an_open_without_a_way_waits_as_long_as_one_without_an_answer():
    time, hub, _ = hub_and_peer()
    flow = hub.connect()
    time.now += TIMEOUTS.open - 1
    flow.detach()
    time.now += TIMEOUTS.open - 1
    assert flow.opening and not flow.attached and flow.check(time.now, TIMEOUTS) is None
    time.now += 1
    assert flow.check(time.now, TIMEOUTS) is Reason.OPEN_TIMEOUT


def test_an_open_that_is_held_has_no_timer_of_its_own():
    time, hub, _ = hub_and_peer()
    flow = hub.connect()
    flow.reopen()
    time.now += 100 * TIMEOUTS.grace
    assert flow.check(time.now, TIMEOUTS) is None


# order


def test_gap_asks_once_and_repeats_are_trimmed():
    time, hub, peer = hub_and_peer()
    flow, client = peer.open()
    peer.send(DATA, flow, payload=stream(0, 0, 100))
    peer.taken()
    for seq in (200, 300, 400):
        peer.send(DATA, flow, seq=seq, payload=stream(0, seq, 100))
    asked = of(RESUME, peer.taken())
    assert [(frame.ack, frame.payload) for frame in asked] == [(100, flow.secret)]
    assert hub.context.gaps == 3 and client.received == stream(0, 0, 100)
    peer.send(RESUME_ACK, flow)
    for seq in (50, 80, 150, 150):  # cut differently from the first time, and overlapping
        peer.send(DATA, flow, seq=seq, payload=stream(0, seq, 250), cut=33)
    assert client.received == stream(0, 0, 400)
    peer.send(DATA, flow, seq=500, payload=b"again")  # another gap is asked for at once
    assert [frame.ack for frame in of(RESUME, peer.taken())] == [400]
    peer.send(RESUME_ACK, flow)
    for _ in range(2):  # the same one again after a second
        peer.send(DATA, flow, seq=500, payload=b"again")
        assert not of(RESUME, peer.taken())
        time.now += 0.6
        hub.check(time.now)
    assert len(of(RESUME, peer.taken())) == 1


def test_when_a_relay_has_dropped_frames_less_is_in_flight_until_the_peer_has_taken_a_window():
    _, hub, peer = hub_and_peer(kernel=1 << 20)
    size, limit = 8 * FULL_READ, 1 << 20
    flow, client = peer.open(limit=limit)
    client.send(stream(0, 0, size))
    peer.taken()
    before = flow.inflight
    assert before == size and flow.congestion == 0
    peer.send(RESUME, flow, payload=flow.secret, ack=2 * FULL_READ, limit=limit)
    assert flow.congestion == (size - 2 * FULL_READ) // 2
    sent = of(DATA, peer.taken())
    assert sent[0].seq == 2 * FULL_READ and flow.congestion <= flow.inflight < flow.congestion + FULL_READ
    for _ in range(10):  # again, at the same byte: at least one frame goes
        peer.send(RESUME, flow, payload=flow.secret, ack=2 * FULL_READ, limit=limit)
        sent = of(DATA, peer.taken())
    assert [len(frame.payload) for frame in sent] == [FULL_READ] and flow.congestion < FULL_READ
    client.send(stream(0, size, size // 2))
    bounds = []
    while sent:
        bounds.append(flow.congestion)
        end = sent[-1].seq + len(sent[-1].payload)
        peer.send(ACK, flow, ack=end, limit=limit)
        sent = of(DATA, peer.taken())
    assert bounds == sorted(bounds) and end == flow.snd_nxt == size + size // 2


@pytest.mark.parametrize("size", [6000, FULL_READ], ids=["in memory of its own", "in a segment"])
@pytest.mark.parametrize("how", ["asked again", "asked on another link", "acknowledged while it waits"])
def test_what_the_peer_has_of_a_chunk_is_not_sent_again(how, size):
    """Or a relay that drops beyond its bound would let the same first part through each time."""
    _, hub, peer = hub_and_peer(kernel=1 << 20)
    flow, client = peer.open(limit=1 << 20)
    for at in (0, size):
        client.send(stream(0, at, size))
    assert [frame.seq for frame in of(DATA, peer.taken())] == [0, size]
    has = 2 * size - 1460
    if how == "asked on another link":
        peer.link.lost(Reason.CONNECTION_LOST)
        peer = Peer(hub)
    if how == "acknowledged while it waits":
        peer.send(RESUME, flow, payload=flow.secret)
        assert [frame.seq for frame in of(DATA, peer.taken())] == [0]
        peer.send(ACK, flow, ack=has, limit=1 << 20)
    else:
        peer.send(RESUME, flow, payload=flow.secret, ack=has, limit=1 << 20)
    assert [(frame.seq, frame.payload) for frame in of(DATA, peer.taken())] == [(has, stream(0, has, 1460))]
    assert hub.context.bytes_out == has and hub.context.pool.held == flow.share.held > 0
    peer.send(ACK, flow, ack=2 * size, limit=1 << 20)
    assert hub.context.bytes_out == 2 * size and hub.context.pool.held == flow.share.held == 0


def test_an_open_goes_again_by_a_way_whose_credit_is_below_what_the_peer_has():
    """An acknowledgement overtakes M_OPEN_ACK, which was lost with the link; the agent's next process gives less."""
    _, hub, peer = hub_and_peer(kernel=1 << 20)
    peer.link.peer_window = 1 << 20
    flow = hub.connect()
    end, less = 2 * FULL_READ, FULL_READ + 512
    for at in (0, FULL_READ):
        hub.sockets[flow.cid].send(stream(0, at, FULL_READ))
    assert [frame.seq for frame in of(DATA, peer.taken())] == [0, FULL_READ]
    has = end - 1460
    peer.send(ACK, flow, ack=has, limit=1 << 20)
    assert flow.opening
    peer.link.lost(Reason.CONNECTION_LOST)
    peer = Peer(hub, less)
    assert flow.attached and flow.snd_limit == less and flow.inflight == 0
    peer.send(FrameType.M_OPEN_ACK, flow, ack=has, limit=end)
    assert [(frame.seq, frame.payload) for frame in of(DATA, peer.taken())] == [(has, stream(0, has, 1460))]
    assert flow.inflight == 1460 and hub.context.pool.held == flow.share.held > 0
    peer.send(ACK, flow, ack=end, limit=1 << 20)
    assert hub.context.bytes_out == end and hub.context.pool.held == flow.share.held == 0


def test_the_answer_to_an_asking_has_nothing_sent_again():
    """Whoever asks has lost frames; what it has sent itself has arrived."""
    _, hub, peer = hub_and_peer(kernel=1 << 20)
    flow, client = peer.open(limit=1 << 20)
    client.send(stream(0, 0, 30_000))
    peer.send(DATA, flow, seq=10, payload=b"behind a gap")
    assert of(RESUME, peer.taken())
    peer.send(RESUME_ACK, flow)
    assert not of(DATA, peer.taken()) and flow.congestion == 0


def test_both_ends_have_lost_frames_and_neither_question_is_forgotten():
    """The peer's question is no answer to ours, even if ours has not left yet."""
    _, hub, peer = hub_and_peer(kernel=0)
    flow, client = peer.open(limit=1 << 20)
    client.send(stream(0, 0, 30_000))  # what is not taken blocks the link
    peer.send(DATA, flow, seq=10, payload=b"behind a gap")
    peer.send(RESUME, flow, payload=flow.secret, limit=1 << 20)
    frames = peer.taken()
    frames += peer.taken()
    assert [frame.type for frame in frames if frame.type != DATA] == [RESUME, RESUME_ACK]
    assert sum(len(frame.payload) for frame in of(DATA, frames)) == 60_000


def test_a_missing_end_is_a_gap_too():
    _, hub, peer = hub_and_peer()
    flow, client = peer.open()
    peer.send(FIN, flow, seq=10)
    assert len(of(RESUME, peer.taken())) == 1 and not client.saw_eof
    peer.send(RESUME_ACK, flow)
    peer.send(DATA, flow, payload=b"0123456789")
    peer.send(FIN, flow, seq=10)
    assert client.received == b"0123456789" and client.saw_eof


def test_a_repeat_is_acknowledged_again():
    time, _, peer = hub_and_peer()
    flow, client = peer.open()
    for _ in range(2):
        peer.send(DATA, flow, payload=b"0123456789")
        time.now += 0.06
        assert [frame.ack for frame in of(ACK, peer.taken())] == [10]
    assert client.received == b"0123456789"


def test_acknowledging_what_was_never_sent_breaks_the_flow():
    _, hub, peer = hub_and_peer()
    flow, client = peer.open(limit=10)
    client.send(b"0123456789 and more")
    peer.taken()
    peer.send(ACK, flow, ack=11, limit=10)
    assert hub.reasons[flow.cid] == [Reason.FLOW_CONTROL] and not peer.link.closed


# replays


def test_what_was_lost_with_the_tunnel_is_sent_again():
    pair = Pair()
    for k in range(10):
        pair.client.send(stream(0, 10_000 * k, 10_000))
        pair.target.send(stream(1, 10_000 * k, 10_000))
        pair.tunnel.carry(k % 2 == 0, 5000)
        pair.reconnect()
    assert pair.target.received == stream(0, 0, 100_000)
    assert pair.client.received == stream(1, 0, 100_000)
    assert pair.hub.context.held == pair.agent.context.held == 0


def test_an_end_that_was_lost_with_the_tunnel_is_sent_again():
    pair = Pair()
    for side in (pair.client, pair.target):
        side.fin()
    pair.reconnect()
    pair.rest()
    assert pair.client.saw_eof and pair.target.saw_eof
    assert pair.hub.reasons == pair.agent.reasons == {pair.near.cid: [Reason.CLOSED]}


@pytest.mark.parametrize("cut", [False, True], ids=["one tunnel", "a cut meanwhile"])
def test_nothing_is_acknowledged_before_the_target_is_connected_and_then_all_is_delivered(cut):
    """What came early may yet have to go to another agent; so it is kept at the hub, and kept in order at the agent."""
    time = Time()
    hub, agent = Hub(time), Agent(time)
    tunnel = Tunnel(hub, agent)
    tunnel.settle()
    flow = hub.connect()
    client = hub.sockets[flow.cid]
    for k in range(5):
        client.send(stream(0, 8000 * k, 8000))
    client.fin()
    for _ in range(4):
        tunnel.settle()
        time.now += 0.03
    assert flow.snd_una == 0 and agent.flows[flow.cid].rcv_nxt == flow.snd_nxt == 40_000
    if cut:
        tunnel.cut()
        tunnel.settle()
        tunnel = Tunnel(hub, agent)
        tunnel.settle()
        assert hub.context.gaps == agent.context.gaps == 0 and agent.context.duplicates
    agent.accept(agent.dials.pop())
    for _ in range(4):
        tunnel.settle()
        time.now += 0.03
    target = agent.sockets[flow.cid]
    assert flow.snd_una == 40_001 and target.received == stream(0, 0, 40_000) and target.saw_eof


def test_frames_that_a_transport_still_holds_are_not_rewritten():
    """A replay under another epoch writes new headers; those of the first time may be on their way to the kernel."""
    _, _, peer = hub_and_peer(kernel=1 << 20)
    flow, client = peer.open(limit=1 << 20)
    client.send(stream(0, 0, 60_000))
    held, before = list(peer.wire.pieces), [bytes(piece) for piece in peer.wire.pieces]
    assert sum(map(len, held)) > 60_000
    again = Peer(peer.hub)
    again.send(RESUME, flow, ack=0, limit=1 << 20, payload=flow.secret)
    assert again.epoch == peer.epoch + 1
    assert [bytes(piece) for piece in held] == before
    replay = again.taken()
    assert b"".join(frame.payload for frame in of(DATA, replay)) == stream(0, 0, 60_000)
    assert {frame.epoch for frame in replay} == {again.epoch}


def test_memory_is_not_used_again_while_a_transport_holds_it():
    _, _, peer = hub_and_peer(kernel=1 << 20)
    flow, client = peer.open(limit=1 << 20)
    client.send(stream(0, 0, 60_000))
    held, before = list(peer.wire.pieces), [bytes(piece) for piece in peer.wire.pieces]
    peer.send(ACK, flow, ack=60_000, limit=1 << 20)
    assert peer.hub.context.held == 0
    client.send(stream(0, 60_000, 60_000))
    assert [bytes(piece) for piece in held] == before


def test_a_wrong_secret_does_not_get_the_flow():
    _, hub, peer = hub_and_peer()
    flow, client = peer.open()
    thief = Peer(hub)
    thief.send(RESUME, flow, limit=1000, payload=b"sixteen  guesses")
    assert [(frame.type, frame.code) for frame in thief.taken()] == [(RST, Reason.RESUME_DENIED)]
    assert flow.path is peer.link
    peer.send(DATA, flow, payload=b"still here")
    assert client.received == b"still here"


def test_a_refused_open_goes_to_another_agent_from_byte_0():
    _, hub, first = hub_and_peer()
    flow = hub.connect()
    client = hub.sockets[flow.cid]
    client.send(stream(0, 0, 50_000))
    assert len(of(DATA, first.taken())) >= 1
    second = Peer(hub, window=20_000)  # with less credit than the first gave: chunks are cut to it
    first.send(RST, flow, code=Reason.TARGET_REFUSED)
    seen = second.taken()
    assert seen[0].type is FrameType.M_OPEN and seen[0].payload == b"open"
    assert b"".join(frame.payload for frame in of(DATA, seen)) == stream(0, 0, 20_000)
    second.send(FrameType.M_OPEN_ACK, flow, ack=20_000, limit=80_000)
    seen += second.taken()
    assert b"".join(frame.payload for frame in of(DATA, seen)) == stream(0, 0, 50_000)
    assert first.link.inflight == 0 and not first.link.flows and not hub.reasons


@pytest.mark.parametrize("touched", ["acknowledged", "answered"])
def test_an_open_that_the_target_has_seen_is_not_retried(touched):
    _, hub, first = hub_and_peer()
    flow = hub.connect()
    hub.sockets[flow.cid].send(b"once only")
    first.taken()
    second = Peer(hub)
    if touched == "acknowledged":
        first.send(ACK, flow, ack=4, limit=64 * KIB)
    else:
        first.send(DATA, flow, payload=b"hello")
    first.send(RST, flow, code=Reason.TARGET_REFUSED)
    assert hub.reasons[flow.cid] == [Reason.TARGET_REFUSED] and second.taken() == []


def closing_over_a_reader_that_pauses(**context):
    """All has been said on the flow; the last bytes are in the transport, and the far side of that does not read."""
    pair = Pair()
    for name, value in context.items():
        setattr(pair.agent.context, name, value)
    pair.target.appetite = 0
    pair.client.send(stream(0, 0, 1000))
    pair.target.fin()
    pair.client.fin()
    pair.rest()
    assert pair.agent.reasons == {pair.near.cid: [Reason.CLOSED]} and not pair.target.received
    return pair


def wait(pair, seconds):
    for _ in range(seconds // 30):
        pair.time.now += 30
        pair.rest()


def test_a_closing_socket_waits_for_a_reader_that_pauses():
    pair = closing_over_a_reader_that_pauses()
    wait(pair, 3600)
    assert pair.agent.context.held == 1000  # it stays in the budget
    pair.target.take(1000)
    pair.rest()
    assert pair.target.received == stream(0, 0, 1000) and pair.target.saw_eof and not pair.target.saw_reset
    assert pair.agent.context.held == 0


def test_a_closing_socket_makes_room_when_memory_is_short():
    pair = closing_over_a_reader_that_pauses()
    pair.agent.context.budget.resize(999)
    wait(pair, 60)
    assert pair.target.saw_reset and pair.agent.context.held == 0


def test_a_closing_socket_whose_reader_pauses_for_too_long_is_reset_and_not_ended_in_order():
    pair = closing_over_a_reader_that_pauses(reader_pause=60.0)
    wait(pair, 120)
    assert pair.target.lost and pair.target.saw_reset and not pair.target.saw_eof
