"""One link: what it answers, what it drops, whom it serves first, when it ends."""

from __future__ import annotations

import itertools

import pytest

from core.ends import FULL_READ, KIB, Agent, End, Hub, Tunnel, stream
from core.raw import Peer, frames, hub_and_peer, message, of
from core.virtual import Time
from ncfast._frames import FrameType, encode
from ncfast.core.errors import Reason

DATA, ACK, FIN, RST, OPEN_ACK = (
    FrameType.M_DATA,
    FrameType.M_ACK,
    FrameType.M_FIN,
    FrameType.M_RST,
    FrameType.M_OPEN_ACK,
)
RESUME, PING, PONG = FrameType.M_RESUME, FrameType.PING, FrameType.PONG
STRANGER = b"nobody knows me!"


def tick(peer, time, seconds=0.5):
    time.now += seconds
    peer.link.tick(time.now, 5.0, 15.0, 30.0)


# frames that are not as they should be


def test_past_the_limit_costs_the_flow_and_no_other():
    _, hub, peer = hub_and_peer(window=16 * KIB)
    bad, client = peer.open()
    good, other = peer.open()
    peer.send(DATA, bad, seq=16 * KIB - 1, payload=b"xy")
    assert [(frame.type, frame.code) for frame in peer.taken()] == [(RST, Reason.FLOW_CONTROL)]
    peer.send(DATA, good, payload=b"fine")
    assert client.saw_reset and client.received == b"" and other.received == b"fine" and not peer.link.closed


def test_an_older_epoch_is_dropped_and_counted():
    _, hub, peer = hub_and_peer()
    flow, client = peer.open()
    for type_ in (DATA, ACK, FIN, RST, OPEN_ACK):
        peer.send(type_, flow, epoch=peer.epoch - 1, payload=b"x" * (type_ is DATA))
    assert peer.link.stale_epoch == 5 and client.received == b"" and not flow.closed and peer.taken() == []
    peer.send(RESUME, flow, epoch=peer.epoch - 1, payload=flow.secret)
    assert [(frame.type, frame.code) for frame in peer.taken()] == [(RST, Reason.STALE_EPOCH)]


@pytest.mark.parametrize("type_, payload", [(DATA, b"x"), (FIN, b""), (OPEN_ACK, b""), (RESUME, bytes(16))], ids=str)
def test_whoever_speaks_of_an_unknown_flow_is_told(type_, payload):
    _, _, peer = hub_and_peer()
    peer.send(type_, cid=STRANGER, payload=payload)
    assert [(frame.type, frame.code, frame.cid) for frame in peer.taken()] == [(RST, Reason.UNKNOWN_FLOW, STRANGER)]


@pytest.mark.parametrize("type_", [ACK, RST], ids=str)
def test_acks_and_resets_of_unknown_flows_get_no_answer(type_):
    _, _, peer = hub_and_peer()
    peer.send(type_, cid=STRANGER)
    assert peer.taken() == []


def test_late_frames_of_a_closed_flow_are_counted_and_not_answered():
    _, hub, peer = hub_and_peer()
    flow, client = peer.open()
    client.reset()
    peer.taken()
    for type_ in (DATA, ACK, FIN, RST):
        peer.send(type_, flow, payload=b"x" * (type_ is DATA))
    assert peer.taken() == [] and hub.context.duplicates == 4
    for type_, payload in ((OPEN_ACK, b""), (RESUME, flow.secret)):  # show that the peer still has the flow
        peer.send(type_, flow, payload=payload)
        assert [(frame.type, frame.code) for frame in peer.taken()] == [(RST, Reason.UNKNOWN_FLOW)]


@pytest.mark.parametrize("cut", [1, 7, 1 << 30])
def test_unknown_ignorable_frames_are_skipped(cut):
    _, _, peer = hub_and_peer()
    flow, client = peer.open()
    wire = encode(DATA, cid=flow.cid, epoch=peer.epoch, payload=b"before, ")
    wire += encode(200, flags=1, cid=flow.cid, epoch=peer.epoch, payload=b"\x05" * 1000, seq=2**63)
    wire += encode(201, flags=1) + encode(DATA, cid=flow.cid, epoch=peer.epoch, seq=8, payload=b"behind")
    peer.feed(message(wire), cut)
    assert client.received == b"before, behind" and not peer.link.closed


@pytest.mark.parametrize(
    "bad", [b"\xff" + bytes(55), bytes(56), encode(PING)[:1] + b"\x02" + encode(PING)[2:]], ids=["type", "0", "flag"]
)
def test_a_malformed_frame_ends_the_link_and_flows_wait_for_the_next(bad):
    _, hub, peer = hub_and_peer()
    other = Peer(hub)
    flow, _ = peer.open()
    peer.feed(message(encode(PING) + bad))
    assert [reason for reason, _ in peer.session.ended] == [Reason.PROTOCOL_ERROR]
    assert peer.wire.take().endswith(b"\x88\x10\x03\xeaprotocol_error")  # a close frame with 1002
    assert not flow.closed and not flow.attached and not other.link.closed


@pytest.mark.parametrize("cut", [1, 2, 13, 55, 57, 1000])
def test_frames_may_be_cut_anywhere(cut):
    _, _, peer = hub_and_peer()
    flow, client = peer.open()
    wire = b"".join(
        message(
            encode(DATA, cid=flow.cid, epoch=peer.epoch, seq=seq, payload=stream(0, seq, 150))
            + encode(FrameType.ANNOUNCE, payload=b"[%d]" % seq)
        )
        for seq in range(0, 1500, 150)
    )
    peer.feed(wire, cut)
    assert client.received == stream(0, 0, 1500)
    assert peer.session.seen == [("announce", b"[%d]" % seq) for seq in range(0, 1500, 150)]


def test_borders_of_messages_mean_nothing():
    _, _, peer = hub_and_peer()
    flow, client = peer.open()
    wire = b"".join(
        encode(DATA, cid=flow.cid, epoch=peer.epoch, seq=seq, payload=stream(0, seq, 90)) for seq in range(0, 900, 90)
    )
    for at in range(0, len(wire), 37):
        peer.feed(message(wire[at : at + 37]))
    assert client.received == stream(0, 0, 900)


class Anybody:
    """A handler that has a use for every frame, and notes only how its link ended."""

    ended = None

    def __getattr__(self, name):
        return lambda *what: True

    def link_ended(self, link, reason, detail):
        self.ended = reason, detail


def bare(handler):
    """A link on a bare stream."""
    return End(Time(), client=False).link(handler, raw=True)[0]


def frame(type_, flags=0):
    """The shortest that is well formed, if the type is one."""
    payload = bytes({DATA: 1, RESUME: 16}.get(type_, 0))
    return bytes([type_, flags, 0, 0]) + len(payload).to_bytes(4, "big") + bytes(48) + payload


@pytest.mark.parametrize("type_", FrameType, ids=str)
def test_every_frame_type_is_taken_by_name(type_):
    handler = Anybody()
    link = bare(handler)
    link.carrier.feed(frame(type_))
    assert handler.ended is None and link.counters()[0] == {type_.name: 1}


@pytest.mark.parametrize("type_", sorted(set(range(256)) - set(FrameType)))
def test_no_other_type_byte_gets_past_its_header(type_):
    handler = Anybody()
    link = bare(handler)
    link.carrier.feed(frame(type_, flags=1) + frame(PING))
    assert handler.ended is None and link.counters()[0] == {"PING": 1}
    link.carrier.feed(frame(type_))
    assert handler.ended == (Reason.PROTOCOL_ERROR, "unknown frame type")


@pytest.mark.parametrize("type_", [-1, 0, max(FrameType) + 1, 32, 255, 256 + PING])
def test_only_frame_types_are_sent(type_):
    link = bare(Anybody())
    with pytest.raises(ValueError, match="frame type"):
        link.send(type_)
    link.send(PING)
    assert link.bytes_out == len(frame(PING)) and link.counters()[1] == {"PING": 1}


# floods

FLOODS = {
    "ping": lambda peer, flow, k: peer.send(PING, seq=k),
    "pong": lambda peer, flow, k: peer.send(PONG, seq=k + 10**6),
    "ack": lambda peer, flow, k: peer.send(ACK, flow),
    "fin": lambda peer, flow, k: peer.send(FIN, flow),
    "open_ack": lambda peer, flow, k: peer.send(OPEN_ACK, flow),
    "resume": lambda peer, flow, k: peer.send(RESUME, flow, payload=flow.secret),
    "resume_ack": lambda peer, flow, k: peer.send(FrameType.M_RESUME_ACK, flow),
    "stale resume": lambda peer, flow, k: peer.send(RESUME, flow, epoch=0, payload=flow.secret),
    "stale data": lambda peer, flow, k: peer.send(DATA, flow, epoch=0, payload=b"x"),
    "strange data": lambda peer, flow, k: peer.send(DATA, cid=STRANGER, payload=b"x"),
    "strange reset": lambda peer, flow, k: peer.send(RST, cid=STRANGER),
    "unknown type": lambda peer, flow, k: peer.feed(message(encode(99, flags=1))),
    "goaway": lambda peer, flow, k: peer.send(FrameType.GOAWAY),
    "auth": lambda peer, flow, k: peer.send(FrameType.AUTH, payload=b"token"),
    "announce": lambda peer, flow, k: peer.send(FrameType.ANNOUNCE, payload=b"[]"),
    "move": lambda peer, flow, k: peer.send(FrameType.MOVE, payload=b"{}"),
    "websocket ping": lambda peer, flow, k: peer.feed(message(b"x" * 125, opcode=9)),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_link_and_no_other(flood):
    time, hub, peer = hub_and_peer()
    other = Peer(hub)
    flow, _ = peer.open()
    for k in range(1100):
        FLOODS[flood](peer, flow, k)
        assert peer.link.queued <= 1000
    tick(peer, time)
    assert [reason for reason, _ in peer.session.ended] == [Reason.FLOOD]
    tick(other, time)
    assert not other.link.closed


@pytest.mark.parametrize("type_", [DATA, ACK, FIN, RST, OPEN_ACK], ids=str)
@pytest.mark.parametrize("between_hubs", [False, True])
def test_a_link_that_owns_nothing_is_no_place_to_flood(type_, between_hubs):
    """A standby's has no epoch, like one between hubs; but only there others' flows may be what is heard."""
    handler = Anybody()
    handler.foreign = lambda cid: False
    end = End(Time(), client=False)
    link, wire = end.link(handler, raw=True, between_hubs=between_hubs)
    for _ in range(1100 if type_ is not OPEN_ACK else 67_000):
        link.carrier.feed(encode(type_, cid=STRANGER, payload=b"x" * (type_ is DATA)))
        end.turns.run()
        wire.take()
    link.tick(0.5, 5.0, 15.0, 30.0)
    assert handler.ended is None if between_hubs else handler.ended[0] is Reason.FLOOD


def test_who_asks_for_what_it_may_not_have_makes_noise(monkeypatch):
    """As whoever asks for what is not there; after a restart of the hub, many are asked for at once."""
    time, _, peer = hub_and_peer()
    asked = []

    def refuse(cid, epoch, payload, ack, limit):
        asked.append(cid)
        peer.link.refuse(cid, Reason.RESUME_DENIED)
        return True

    peer.session._on_frame__resume = refuse
    for number in range(67_000):
        peer.send(RESUME, cid=number.to_bytes(16, "big"), payload=bytes(16))
        if number == 60_000:
            tick(peer, time)
            assert not peer.link.closed
        peer.taken()
    tick(peer, time)
    assert 66_536 < len(asked) < 67_000 and [reason for reason, _ in peer.session.ended] == [Reason.FLOOD]


def test_honest_peers_make_no_noise():
    """A thousand flows that resume after a cut, half of them opened while it happened, are no flood."""
    time, hub, peer = hub_and_peer()
    flows = [peer.open()[0] for _ in range(200)] + [hub.connect() for _ in range(200)]
    peer.link.lost(Reason.CONNECTION_LOST)
    again = Peer(hub)
    for flow in flows:
        again.send(RESUME, flow, limit=64 * KIB, payload=flow.secret)
    tick(again, time)
    assert not again.link.closed and all(flow.path is again.link and not flow.opening for flow in flows)


# keepalive


def test_ping_is_answered_and_pongs_owed_become_one():
    _, _, peer = hub_and_peer(kernel=2000)
    for seq in (1, 2):
        peer.send(PING, seq=seq)
        assert [(frame.type, frame.seq) for frame in peer.taken()] == [(PONG, seq)]
    flow, client = peer.open()
    client.send(bytes(50_000))  # more than the kernel takes
    for seq in range(3, 100):
        peer.send(PING, seq=seq)
    assert [frame.seq for frame in of(PONG, peer.taken() + peer.taken())] == [99]


def test_pings_go_at_their_interval_and_measure():
    time, _, peer = hub_and_peer()
    sent = []
    for _ in range(60):
        tick(peer, time)
        for frame in of(PING, peer.taken()):
            sent.append(time.now)
            time.now += 0.02
            peer.send(PONG, seq=frame.seq)
    assert all(4.9 <= later - earlier <= 6 for earlier, later in itertools.pairwise(sent)) and len(sent) >= 5
    assert peer.link.rtt == pytest.approx(0.02) and len(peer.session.rtts) == len(sent)


def test_silence_ends_the_link_and_any_byte_is_life():
    time, _, peer = hub_and_peer()
    for _ in range(100):
        tick(peer, time)
        peer.feed(b"\x82")  # the first byte of a message is life enough; the rest follows
        peer.feed(message(encode(PING))[1:])
    assert not peer.link.closed
    for _ in range(31):
        tick(peer, time)
    assert [reason for reason, _ in peer.session.ended] == [Reason.KEEPALIVE_TIMEOUT] and peer.wire.aborted


def test_who_has_stood_still_reads_before_it_judges():
    """A paused machine, a starved process: its peer's pings lie in the kernel."""
    time, _, peer = hub_and_peer()
    tick(peer, time)
    tick(peer, time, 100.0)
    assert not peer.link.closed
    peer.send(PING)
    tick(peer, time)
    assert not peer.link.closed
    tick(peer, time, 100.0)
    tick(peer, time)
    assert [reason for reason, _ in peer.session.ended] == [Reason.KEEPALIVE_TIMEOUT]


def test_a_peer_that_takes_nothing_is_cut():
    time, _, peer = hub_and_peer(kernel=1000)
    flow, client = peer.open()
    client.send(bytes(50_000))
    for _ in range(62):
        tick(peer, time)
        peer.send(PONG, seq=10**9)
    assert [reason for reason, _ in peer.session.ended] == [Reason.STALLED] and peer.wire.aborted


def test_askings_that_come_close_together_are_no_flood_and_more_of_them_are():
    """Whoever asks each second, over a way that holds the first one back: two arrive at once, for each of its flows."""
    time, _, peer = hub_and_peer(kernel=1 << 30)
    flows = [peer.open()[0] for _ in range(60)]

    def ask() -> None:
        for flow in flows:
            peer.send(RESUME, flow, payload=flow.secret)

    for _ in range(4):
        ask()
        time.now += 0.06
        ask()
        tick(peer, time, 1.94)
    assert not peer.link.closed
    for _ in range(3):
        ask()
    assert [reason for reason, _ in peer.session.ended] == [Reason.FLOOD]


def test_answers_do_not_pile_up():
    """378 MiB in 15 s, from one tunnel whose peer asked and did not read, and in no budget."""
    _, hub, peer = hub_and_peer(kernel=0)
    context = hub.context
    peer.link.ping()
    for number in range(4_096):
        peer.send(RESUME, cid=number.to_bytes(16, "big"), payload=bytes(16))
    assert not peer.link.closed and peer.link.answer_bytes == context.held == 4_096 * 256
    peer.send(RESUME, cid=STRANGER, payload=bytes(16))
    assert [reason for reason, _ in peer.session.ended] == [Reason.STALLED] and context.held == 0


def test_a_crowd_that_asks_at_once_and_reads_is_answered():
    _, hub, peer = hub_and_peer(kernel=1 << 30)
    wire = b"".join(
        encode(RESUME, cid=number.to_bytes(16, "big"), epoch=peer.epoch, payload=bytes(16)) for number in range(20_000)
    )
    answers = []
    for at in range(0, len(wire), 700_000):
        peer.feed(message(wire[at : at + 700_000]))  # more than may wait at once
        answers += of(RST, peer.taken())
    assert len(answers) == 20_000 and not peer.link.closed and hub.context.held == 0


def test_between_hubs_what_finds_no_room_gets_no_answer():
    handler = Anybody()
    handler.foreign = lambda cid: False
    handler._on_frame__resume = lambda *what: False
    end = End(Time(), client=False, kernel=0)
    link, _ = end.link(handler, raw=True, between_hubs=True)
    link.ping()
    for number in range(5_000):
        link.carrier.feed(encode(RESUME, cid=number.to_bytes(16, "big"), payload=bytes(16)))
    assert handler.ended is None and link.answer_bytes == end.context.held == 4_096 * 256
    link.fail(Reason.GOING_AWAY)
    assert end.context.held == 0


def test_control_frames_do_not_pile_up():
    _, _, peer = hub_and_peer(kernel=0, queue_depth=100)
    peer.link.send(FrameType.GOAWAY)
    for _ in range(101):
        peer.link.send(FrameType.ANNOUNCE, b"[]")
    assert [reason for reason, _ in peer.session.ended] == [Reason.STALLED]


# who is served first


def bytes_ahead_of(flow, peer):
    """How many bytes of other flows leave before the first of this one, on a link that drains by 64 KiB."""
    order = []
    while data := peer.wire.take(64 * KIB):
        order.append(data)
        while peer.hub.turns.run():
            pass
    sent = of(DATA, frames(b"".join(order)))
    return sum(len(frame.payload) for frame in itertools.takewhile(lambda frame: frame.cid != flow.cid, sent))


def test_bulk_does_not_delay_a_short_message():
    _, _, peer = hub_and_peer(kernel=64 * KIB)
    bulk = [peer.open(limit=16 << 20) for _ in range(4)]
    short, client = peer.open()
    for _ in range(3):
        for _, big in bulk:
            big.send(bytes(200_000))
    client.send(b"bind")
    assert (
        bytes_ahead_of(short, peer) <= 64 * KIB + 227 * KIB
    )  # what the kernel and one full write hold, of 2.4 MB that wait


def test_bulk_that_comes_in_small_pieces_is_no_short_message():
    """A flow that has grown while it waited."""
    _, _, peer = hub_and_peer(kernel=64 * KIB)
    bulk = [peer.open(limit=16 << 20) for _ in range(8)]
    short, client = peer.open()
    bulk[0][1].send(bytes(200_000))  # the link takes no more
    for _, big in bulk:
        for _ in range(16):
            big.send(bytes(4 * KIB))
    client.send(b"bind")
    assert bytes_ahead_of(short, peer) <= 64 * KIB + 227 * KIB


def test_bulk_flows_take_turns():
    _, _, peer = hub_and_peer(kernel=0)
    flows = [peer.open(limit=16 << 20) for _ in range(3)]
    for _, client in flows:
        client.send(bytes(1_000_000))
    sent = {flow.cid: 0 for flow, _ in flows}
    while data := peer.wire.take():
        for frame in of(DATA, frames(data)):
            sent[frame.cid] += len(frame.payload)
        left = [1_000_000 - count for count in sent.values()]
        if min(left) > 0:
            assert max(left) - min(left) <= 3 * 64 * KIB, sent
        while peer.hub.turns.run():
            pass
    assert set(sent.values()) == {1_000_000}


def test_the_cap_holds_all_flows_together_and_wakes_those_it_held():
    _, hub, peer = hub_and_peer(max_inflight=100_000)
    first, one = peer.open(limit=16 << 20)
    second, two = peer.open(limit=16 << 20)
    one.send(bytes(150_000))
    two.send(bytes(150_000))
    got = {first.cid: 0, second.cid: 0}
    while sent := of(DATA, peer.taken()):  # nothing else wakes the link: no timer, no ping, no new bytes
        assert 0 < peer.link.inflight < 100_000 + 64 * KIB
        for frame in sent:
            got[frame.cid] += len(frame.payload)
        cid = sent[0].cid  # acknowledged by one flow at a time: the other's bytes wait too
        peer.send(ACK, cid=cid, ack=got[cid], limit=16 << 20)
        peer.send(ACK, cid=sent[-1].cid, ack=got[sent[-1].cid], limit=16 << 20)
    assert set(got.values()) == {150_000} and peer.link.inflight == 0


def test_whom_the_cap_holds_keeps_its_place():
    """Whatever else has the link look at its queues while the cap is reached."""
    _, _, peer = hub_and_peer(max_inflight=FULL_READ)
    flows = [peer.open(limit=16 << 20) for _ in range(4)]
    for _, client in flows:
        client.send(bytes(500_000))
    got = {flow.cid: 0 for flow, _ in flows}
    for _ in range(40):
        for frame in of(DATA, peer.taken()):
            got[frame.cid] += len(frame.payload)
            peer.send(ACK, cid=frame.cid, ack=got[frame.cid], limit=16 << 20)
            peer.hub.turns.run()
            peer.send(PING, epoch=0)  # answered at once, although no data may follow
        assert max(got.values()) - min(got.values()) <= 2 * FULL_READ, got
    assert max(got.values()) > 256 * KIB


def test_a_reset_gives_back_what_its_flow_had_in_flight():
    _, _, peer = hub_and_peer(max_inflight=64 * KIB)
    _, one = peer.open(limit=16 << 20)
    second, two = peer.open(limit=16 << 20)
    one.send(bytes(64 * KIB))
    two.send(bytes(1000))
    assert {frame.cid for frame in of(DATA, peer.taken())} != {second.cid}
    one.reset()
    assert [len(frame.payload) for frame in of(DATA, peer.taken())] == [1000]
    assert peer.link.inflight == 1000


def test_frames_of_one_turn_leave_in_one_write():
    _, _, peer = hub_and_peer()
    clients = [peer.open()[1] for _ in range(10)]
    for _ in range(3):  # after quiet turns a link needs to see a busy one first
        for client in clients:
            client.send(b"hello")
        first = peer.wire.take()
        while peer.hub.turns.run():
            pass
        rest = list(peer.wire.pieces)
        peer.wire.take()
    assert len(frames(first)) == 1  # at once: the link was idle
    assert len(rest) == 1 and len(frames(bytes(rest[0]))) == 9


def test_both_directions_full_do_not_lock():
    """Neither side reads its socket, both send: acknowledgements still pass, and all arrives in the end."""
    time = Time()
    hub, agent = (make(time, max_inflight=64 * KIB, kernel=1000, window=64 * KIB) for make in (Hub, Agent))
    tunnel = Tunnel(hub, agent)
    tunnel.settle()
    flow = hub.connect()
    tunnel.settle()
    agent.accept(agent.dials.pop())
    client, target = hub.sockets[flow.cid], agent.sockets[flow.cid]
    for side in (client, target):
        side.send(stream(0, 0, 1_000_000))
    for _ in range(200):
        tunnel.settle()
        time.now += 0.03
    assert client.received == target.received == stream(0, 0, 1_000_000)
