"""A hub that relays: what goes through untouched, what waits and for how long, what is dropped, who may end what."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.ends import KIB, stream
from core.raw import message, of
from core.relayed import MESSAGE, Between, Cluster, Handler, OwnerSession, block, cid, data, of_flow
from core.virtual import Wire
from ncfast._frames import IGNORABLE, FrameType, encode
from ncfast.core.errors import Reason
from ncfast.core.relay import Relay

OPEN, OPEN_ACK, DATA, ACK, FIN = (
    FrameType.M_OPEN,
    FrameType.M_OPEN_ACK,
    FrameType.M_DATA,
    FrameType.M_ACK,
    FrameType.M_FIN,
)
RST, RESUME, RESUME_ACK = FrameType.M_RST, FrameType.M_RESUME, FrameType.M_RESUME_ACK
DETACH, GAP, PING = FrameType.M_DETACH, FrameType.M_GAP, FrameType.PING
HEADER = 56
COST = 256


def brief(some):
    return [(frame.type, frame.seq, len(frame.payload)) for frame in some]


def content(some, start=0):
    """The bytes of frames that follow each other without a gap."""
    out = b""
    for frame in some:
        if frame.type == DATA:
            assert frame.seq == start + len(out), "out of order"
            out += frame.payload
    return out


# untouched

FRAMES = st.lists(
    st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([1, 55, 300, 4096, 20_000, 65_536])), min_size=1, max_size=12
)
CUTS = st.lists(st.one_of(st.integers(1, 130), st.integers(1, 70_000)), max_size=30)


def pieces(wired, cuts):
    at = 0
    for cut in [*cuts, len(wired)]:
        if wired[at : at + cut]:
            yield wired[at : at + cut]
        at += cut


@given(some=FRAMES, messages=CUTS, reads=CUTS, raw=st.booleans())
@settings(max_examples=300)
def test_bytes_pass_whatever_the_borders_of_messages_and_reads(some, messages, reads, raw):
    """Frames of three flows and of a type that nobody knows, up; each flow's bytes come out as they went in."""
    rig = Between(raw=raw)
    sent = {1: 0, 2: 0, 3: 0}
    wired = b""
    for number in sent:
        rig.open(number)
    for number, size in some:
        wired += data(number, sent[number], size, ack=number, limit=1000 + number)
        wired += encode(200, flags=IGNORABLE, payload=bytes(size % 7))
        sent[number] += size
    wire = b"".join(
        message(piece) for piece in pieces(wired, [min(one, 200_000) for one in [*messages, 200_000, 200_000, 200_000]])
    )
    out = []
    for piece in pieces(wire, reads):
        rig.feed(rig.tunnel.wire, piece)
        out += rig.to_origin()
    for number, size in sent.items():
        mine = [frame for frame in out if frame.cid == cid(number)]
        assert content(mine) == stream(number, 0, size)
        assert {(frame.epoch, frame.ack, frame.limit) for frame in mine} <= {(1, number, 1000 + number)}
    assert rig.nothing_waits() and not rig.tunnel.link.closed


def test_a_frame_over_two_reads_does_not_take_other_bytes_for_its_header():
    """The payload's last piece lies where the first one's header, a read ago, would make room for it."""
    rig = Between()
    rig.open()
    wired = data(1, 0, 400)
    first, second = message(wired[: HEADER + 100 + 56]), message(wired[HEADER + 100 + 56 :])
    assert (
        first[:2] == b"\x82\xfe" and second[:2] == b"\x82\xfe"
    )  # both headers are 8 bytes: 8 + 56 of the one are 56 + 8 of the other
    rig.feed(rig.tunnel.wire, first[:-56])
    rig.feed(rig.tunnel.wire, first[-56:] + second)
    assert content(rig.to_origin()) == stream(1, 0, 400)


def test_what_was_passed_on_arrives_though_the_bytes_behind_it_end_the_link():
    rig = Between()
    rig.open()
    rig.from_agent(data(size=1000), bytes(HEADER))
    assert rig.tunnel.ended == [Reason.PROTOCOL_ERROR]
    out = rig.to_origin()
    assert content(out) == stream(1, 0, 1000) and [frame.type for frame in out] == [DATA, DETACH]


def test_what_was_passed_on_leaves_at_once_when_a_defect_ends_the_read(monkeypatch):
    rig = Between()
    rig.open()
    monkeypatch.setattr(OwnerSession, "_on_frame__resume", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rig.from_agent(data(size=1000), of_flow(RESUME, payload=bytes(16)))
    assert content(rig.to_origin()) == stream(1, 0, 1000)


def test_the_bare_stream_gets_the_very_memory_of_the_read():
    """The transport copies what the kernel did not take; nobody else does."""
    rig = Between()
    rig.open()
    wired = b"".join(data(1, seq, 65536) for seq in range(0, 3 * 65536, 65536))
    rig.from_agent(wired)
    assert content(rig.to_origin()) == stream(1, 0, 3 * 65536)
    assert rig.mesh.wire.copied == len(wired)


def test_more_pieces_than_a_write_has():
    """Frames that are not adjacent are pieces of their own, and a read may hold more of them than one write."""
    rig = Between()
    rig.open()
    between = encode(200, flags=IGNORABLE)
    rig.from_agent(b"".join(data(1, seq, 600) + between for seq in range(0, 200 * 600, 600)))
    assert content(rig.to_origin()) == stream(1, 0, 200 * 600)


def test_no_message_is_larger_than_every_peer_takes():
    rig = Between(raw=False)
    rig.open()
    rig.feed(rig.mesh.wire, b"".join(message(data(1, seq, 60_000)) for seq in range(0, 600_000, 60_000)))
    assert max(rig.tunnel.wire.borders) <= MESSAGE
    assert content(rig.to_agent()) == stream(1, 0, 600_000)


def test_what_waited_leaves_in_messages_that_every_peer_takes():
    """The first frame that waits is a short one; what comes behind it is not."""
    rig = Between()
    rig.open()
    block(rig.tunnel)
    rig.from_origin(of_flow(ACK, ack=7), *(data(1, seq, 65536) for seq in range(0, 20 * 65536, 65536)))
    assert rig.tunnel.link.relay_frames >= 20  # more: where a read ended in a frame, that became two
    block(rig.tunnel, False)
    assert max(rig.tunnel.wire.borders) <= MESSAGE
    assert content(rig.to_agent()) == stream(1, 0, 20 * 65536) and rig.nothing_waits()


# order


def test_no_frame_overtakes_those_of_its_flow_that_wait():
    rig = Between()
    rig.open()
    block(rig.mesh)
    rig.from_agent(data(1, 0, 5000), of_flow(ACK, ack=1), data(1, 5000, 300))
    block(rig.mesh, False)
    rig.from_agent(data(1, 5300, 50), of_flow(FIN, seq=5350), of_flow(RST, code=Reason.TARGET_RESET))
    out = rig.to_origin()
    assert [frame.type for frame in out] == [ACK, DATA, DATA, DATA, FIN, RST] and content(out[1:]) == stream(1, 0, 5350)
    assert rig.owner.relays == {} and rig.nothing_waits()


def test_acknowledgements_do_not_wait_behind_their_flows_data():
    """Neither those that come alone nor those that come with data; the latest is enough."""
    rig = Between()
    rig.open()
    block(rig.mesh)
    rig.from_agent(data(1, 0, 4000), of_flow(ACK, ack=100, limit=1 << 20), data(1, 4000, 4000, ack=200, limit=1 << 20))
    rig.from_agent(of_flow(ACK, ack=300, limit=1 << 21), data(1, 8000, 4000, ack=250, limit=1 << 20))
    block(rig.mesh, False)
    some = rig.to_origin()
    assert [frame.type for frame in some] == [ACK, DATA, DATA, DATA] and (some[0].ack, some[0].limit) == (300, 1 << 21)
    assert content(some[1:]) == stream(1, 0, 12_000) and rig.nothing_waits()


def test_an_acknowledgement_gets_through_where_its_frame_is_dropped():
    rig = Between(queue_depth=2)
    rig.open()
    block(rig.mesh)
    rig.from_agent(*(data(1, seq, 100, ack=1 + seq, limit=1 << 20) for seq in range(0, 500, 100)))
    block(rig.mesh, False)
    some = rig.to_origin()
    assert [frame.type for frame in some] == [ACK, DATA, DATA, GAP] and some[0].ack == 401


def test_what_a_lost_link_was_to_be_told_goes_with_it():
    rig = Between()
    relay = rig.open()
    block(rig.mesh)
    rig.from_agent(data(1, 0, 100, ack=7, limit=1 << 20))
    relay.disconnect()
    block(rig.mesh, False)
    assert rig.to_origin() == [] and rig.nothing_waits()


def test_the_link_that_comes_free_within_a_read_sends_what_passed_first():
    """`_flush` in the middle of a read: the pieces that wait for the read's end are older than anything queued."""
    rig = Between()
    rig.open()
    relay = rig.owner.relays[cid(1)]
    seen = []

    def resume(self, cid_, epoch, secret, ack, limit):
        seen.append(relay.mesh)
        relay.mesh.send(FrameType.AUTH, b"in between")  # flushes
        return True

    original, OwnerSession._on_frame__resume = OwnerSession._on_frame__resume, resume
    try:
        rig.from_agent(data(1, 0, 500), of_flow(RESUME, payload=bytes(16)), data(1, 500, 500))
    finally:
        OwnerSession._on_frame__resume = original
    assert seen and [frame.type for frame in rig.to_origin()] == [DATA, FrameType.AUTH, DATA]


def test_a_resume_does_not_overtake_the_word_that_the_way_was_lost():
    """The mesh link is lost, and back within the same turn: told in the wrong order the agent would wait for ever."""
    rig = Between()
    rig.open()
    rig.mesh.link.fail(Reason.GOING_AWAY)
    rig.mesh = rig.owner.up = rig.origin()
    rig.from_origin(of_flow(RESUME, payload=bytes(16), ack=3))
    assert [frame.type for frame in rig.to_agent()] == [DETACH, RESUME]


def test_our_own_flows_at_their_cap_do_not_hold_back_what_is_relayed():
    """A hub that is the origin of some of the agent's flows and the relay of others."""
    rig = Between(max_inflight=20 * KIB)
    rig.open(1)
    link = rig.tunnel.link
    link.peer_window = 1 << 20
    from ncfast.core.flow import Flow

    flow = Flow(rig.owner.context, b"owner..." + bytes(8), bytes(16), b"open", rig.owner)
    rig.owner.flows[flow.cid] = flow
    socket = rig.owner.socket(flow, Reason.CLIENT_RESET)
    flow.attach(link, resumed=True)
    socket.send(stream(9, 0, 200 * KIB))
    rig.to_agent()
    assert link.inflight >= 20 * KIB
    block(rig.tunnel)
    socket.send(stream(9, 0, 1))
    rig.from_origin(data(1, 0, 30_000), of_flow(ACK, ack=1))
    block(rig.tunnel, False)
    out = rig.to_agent()
    assert content([frame for frame in out if frame.cid == cid(1)]) == stream(1, 0, 30_000) and rig.nothing_waits()


def test_flows_take_turns():
    """One with little to say does not wait behind those with much."""
    rig = Between()
    for number in (1, 2, 3):
        rig.open(number)
    block(rig.tunnel)
    for number in (1, 2):
        rig.from_origin(*(data(number, seq, 16384) for seq in range(0, 30 * 16384, 16384)))
    rig.from_origin(data(3, 0, 50))
    block(rig.tunnel, False)
    served, first = {1: 0, 2: 0, 3: 0}, None
    for frame in rig.to_agent():
        first = first or frame.cid[-1]
        served[frame.cid[-1]] += len(frame.payload)
        if max(served.values()) < 30 * 16384:
            assert abs(served[1] - served[2]) <= 2 * 16384
    assert first == 3 and served == {1: 30 * 16384, 2: 30 * 16384, 3: 50}


# bounds


def test_beyond_the_bound_frames_are_dropped_and_the_receiver_is_told_behind_the_last_that_waited():
    rig = Between(queue_depth=3)
    rig.open(1)
    rig.open(2)
    block(rig.mesh)
    rig.from_agent(*(data(1, seq, 100) for seq in range(0, 500, 100)), data(2, 0, 5000))
    link = rig.mesh.link
    assert (link.relay_frames, link.relay_bytes) == (3, 3 * (HEADER + 100 + COST)) == (3, rig.owner.context.relayed)
    assert link.drops_queue == 3 and rig.tunnel.link.drops_away == 0
    block(rig.mesh, False)
    out = rig.to_origin()
    assert brief([frame for frame in out if frame.cid == cid(1)]) == [
        (DATA, 0, 100),
        (DATA, 100, 100),
        (DATA, 200, 100),
        (GAP, 0, 0),
    ]
    assert brief([frame for frame in out if frame.cid == cid(2)]) == [(GAP, 0, 0)]
    rig.from_agent(data(1, 500, 100))
    assert brief(rig.to_origin()) == [(DATA, 500, 100)] and rig.nothing_waits()


def test_one_short_frame_of_each_flow_has_room_behind_the_bulk_of_others():
    rig = Between(queue_depth=3)
    rig.open(1)
    rig.open(2)
    block(rig.mesh)
    rig.from_agent(
        *(data(1, seq, 10_000) for seq in range(0, 100_000, 10_000)), of_flow(OPEN_ACK, 2), of_flow(FIN, 2, seq=0)
    )
    assert rig.mesh.link.relay_frames == 4
    block(rig.mesh, False)
    out = rig.to_origin()
    assert [frame.type for frame in out if frame.cid == cid(2)] == [OPEN_ACK, GAP] and rig.nothing_waits()


def test_nothing_goes_behind_what_was_dropped_before_the_receiver_knows():
    """Else a direction that is always busy would never come to the word that something is missing."""
    rig = Between(queue_depth=20)
    rig.open()
    block(rig.mesh)
    rig.from_agent(*(data(1, seq, 10_000) for seq in range(0, 21 * 10_000, 10_000)))
    rig.mesh.wire.kernel = 0
    block(rig.mesh, False)  # a part leaves, and the link is blocked again
    assert 0 < rig.mesh.link.relay_frames < 20
    rig.from_agent(of_flow(ACK, ack=1), data(1, 210_000, 10_000), of_flow(FIN, seq=220_000))
    out = []
    while some := rig.to_origin():
        out += some
    assert [frame.type for frame in out if frame.type != ACK] == [DATA] * 20 + [GAP]
    assert [frame.type for frame in out].count(ACK) == 1 and rig.mesh.link.drops_queue == 3 and rig.nothing_waits()


def test_bytes_are_bounded_too():
    rig = Between(max_inflight=50_000)
    rig.open()
    block(rig.mesh)
    rig.from_agent(*(data(1, seq, 60_000) for seq in range(0, 240_000, 60_000)))
    assert rig.mesh.link.relay_bytes == 60_000 + HEADER + COST and rig.mesh.link.drops_queue == 3


def test_short_of_memory_each_direction_keeps_a_little():
    rig = Between(budget=0)
    rig.open()
    block(rig.mesh)
    rig.from_agent(*(data(1, seq, 10_000) for seq in range(0, 100_000, 10_000)))
    assert rig.mesh.link.relay_frames == 2
    assert rig.owner.context.held == rig.owner.context.relayed == 2 * (10_000 + HEADER + COST)


@pytest.mark.parametrize("type_", [RESUME_ACK, ACK, OPEN_ACK, FIN], ids=str)
def test_a_blocked_link_holds_no_more_control_frames_than_its_bound(type_):
    rig = Between(queue_depth=5)
    rig.open()
    block(rig.mesh)
    rig.from_agent(*(of_flow(type_, limit=k if type_ is ACK else 0) for k in range(100)))
    assert rig.mesh.link.relay_frames == 5


def test_resumes_and_resets_pass_every_bound_once_for_each_flow():
    rig = Between(queue_depth=2)
    for number in range(10):
        rig.open(number)
    block(rig.mesh)
    for number in range(10):
        rig.from_agent(*(of_flow(RESUME, number, payload=bytes(16), ack=k) for k in range(3)), data(number, 0, 10))
    assert rig.mesh.link.relay_frames == 11  # and one of data, while there was room
    rig.from_agent(*(of_flow(RST, number, code=Reason.TARGET_RESET) for number in range(10)))
    assert rig.owner.relays == {} and rig.mesh.link.relay_frames == 21
    block(rig.mesh, False)
    out = rig.to_origin()
    assert len(of(RESUME, out)) == len(of(RST, out)) == 10 and not of(GAP, out) and rig.nothing_waits()


def test_a_reset_behind_dropped_frames_leaves_nothing_to_ask_for():
    rig = Between(queue_depth=1)
    rig.open()
    block(rig.mesh)
    rig.from_agent(data(1, 0, 10), data(1, 10, 10), of_flow(RST, code=Reason.TARGET_RESET))
    block(rig.mesh, False)
    assert [frame.type for frame in rig.to_origin()] == [DATA, RST]


def test_frames_without_a_link_to_leave_by_are_dropped_and_counted():
    rig = Between()
    relay = rig.open()
    rig.mesh.link.fail(Reason.GOING_AWAY)
    rig.from_agent(data(), of_flow(ACK, ack=1), of_flow(FIN, seq=100))
    assert rig.tunnel.link.drops_away == 3 and relay.mesh is None and rig.owner.relays
    rig.from_agent(of_flow(RST, code=Reason.TARGET_RESET))
    assert rig.owner.relays == {} and rig.owner.over == [cid(1)]


def test_what_waits_for_a_link_goes_with_it():
    rig = Between()
    relay = rig.open()
    for handler in (rig.mesh, rig.tunnel):
        block(handler)
    rig.from_agent(data())
    rig.from_origin(data())
    assert rig.mesh.link.relay_frames == rig.tunnel.link.relay_frames == 1
    relay.disconnect()  # both ends will resume
    assert rig.nothing_waits() and (relay.up.waiting, relay.down.waiting) == (0, 0)
    rig.mesh.link.fail(Reason.GOING_AWAY)
    rig.tunnel.link.fail(Reason.GOING_AWAY)
    assert rig.nothing_waits() and rig.owner.relays == {}


def test_a_link_that_ends_gives_back_what_waited_for_it():
    rig = Between()
    rig.open(1)
    rig.open(2)
    block(rig.mesh)
    rig.from_agent(data(1), data(2), of_flow(RST, 2, code=Reason.TARGET_RESET))  # of one that is over, too
    rig.mesh.link.fail(Reason.GOING_AWAY)
    assert rig.nothing_waits() and list(rig.owner.relays) == [cid(1)]


def test_what_waits_when_a_flow_is_over_is_still_sent():
    rig = Between()
    rig.open()
    block(rig.mesh)
    rig.from_agent(data(), of_flow(RST, code=Reason.TARGET_RESET))
    assert rig.owner.relays == {} and rig.mesh.link.lanes == rig.tunnel.link.lanes == {}
    block(rig.mesh, False)
    assert [frame.type for frame in rig.to_origin()] == [DATA, RST] and rig.nothing_waits()


def test_counters_tell_what_left():
    rig = Between(queue_depth=2)
    relay = rig.open()
    block(rig.mesh)
    rig.from_agent(*(data(1, seq, 10) for seq in range(0, 50, 10)))
    relay.disconnect()
    assert rig.mesh.link.counters()[1].get("M_DATA", 0) == 0
    relay.connect(rig.mesh.link)
    block(rig.mesh, False)
    rig.from_agent(data(1, 50, 10))
    rig.to_origin()
    assert rig.mesh.link.counters()[1]["M_DATA"] == 1 and rig.tunnel.link.counters()[0]["M_DATA"] == 6


# only those two links, only that epoch


def test_a_third_link_that_uses_the_cid_gets_nothing_through():
    rig = Between()
    rig.open()
    third = rig.origin()
    for type_ in (DATA, ACK, FIN, RST, OPEN_ACK, RESUME_ACK, DETACH, GAP):
        rig.from_origin(of_flow(type_, seq=1 * (type_ in (FIN,)), payload=b"x" * (type_ is DATA)), mesh=third)
    assert rig.to_agent() == [] and rig.to_origin() == [] and rig.owner.relays
    other = OwnerSession(rig.owner)  # another agent's tunnel is no better
    other.link.establish(1)
    rig.feed(other.wire, message(data() + of_flow(RST, code=Reason.TARGET_RESET)))
    assert rig.to_agent() == [] and rig.to_origin() == [] and rig.owner.relays


@pytest.mark.parametrize("type_", [DATA, ACK, FIN, RST, OPEN_ACK, RESUME_ACK, DETACH, GAP], ids=str)
@pytest.mark.parametrize("epoch", [0, 2])
def test_another_epoch_is_dropped_and_counted_on_both_sides(type_, epoch):
    rig = Between()
    rig.open()
    frame = of_flow(type_, epoch=epoch, payload=b"x" * (type_ is DATA))
    rig.from_origin(frame)
    rig.from_agent(frame)
    assert rig.to_agent() == [] and rig.to_origin() == [] and rig.owner.relays
    assert rig.mesh.link.stale_epoch == rig.tunnel.link.stale_epoch == 1


def test_a_newer_tunnel_of_the_agent_takes_the_flow_over():
    rig = Between()
    rig.open()
    old = rig.tunnel
    rig.tunnel = OwnerSession(rig.owner)
    rig.from_agent(encode(FrameType.HELLO, payload=bytes(8)))
    assert old.ended == [Reason.SUPERSEDED] and rig.owner.relays == {}
    rig.from_agent(of_flow(RESUME, epoch=2, payload=bytes(16), ack=5, limit=9))
    assert [
        (frame.type, frame.epoch, frame.ack, frame.limit, frame.payload[:16]) for frame in of(RESUME, rig.to_origin())
    ] == [(RESUME, 2, 5, 9, bytes(16))]
    rig.from_origin(data(1, 0, 10, epoch=1), data(1, 0, 20, epoch=2))
    assert [frame.epoch for frame in rig.to_agent() if frame.type == DATA] == [2] and rig.mesh.link.stale_epoch == 1


# what the relay says of itself


def test_the_round_trip_beyond_goes_with_opens_and_resumes_and_their_answers():
    rig = Between()
    for handler in (rig.mesh, rig.tunnel):
        handler.link.ping()
    rig.time.now += 0.25
    rig.from_origin(encode(FrameType.PONG, seq=1))
    rig.time.now += 0.5
    rig.from_agent(encode(FrameType.PONG, seq=1))
    rig.to_agent(), rig.to_origin()
    rig.from_origin(of_flow(OPEN, payload=b"open"), of_flow(RESUME, payload=bytes(16)), of_flow(RESUME_ACK))
    rig.from_agent(of_flow(OPEN_ACK), of_flow(RESUME, payload=bytes(16)), of_flow(RESUME_ACK))
    assert [(frame.type, frame.seq) for frame in rig.to_agent()] == [
        (OPEN, 250_000),
        (RESUME, 250_000),
        (RESUME_ACK, 250_000),
    ]
    assert [(frame.type, frame.seq) for frame in rig.to_origin()] == [
        (OPEN_ACK, 750_000),
        (RESUME, 750_000),
        (RESUME_ACK, 750_000),
    ]


@pytest.mark.parametrize(
    "first", [of_flow(OPEN_ACK), data(), of_flow(FIN), of_flow(RESUME, payload=bytes(16))], ids=lambda one: str(one[0])
)
def test_an_accepted_open_is_told_once(first):
    """M_OPEN_ACK may be dropped on its way, or have passed long ago; then what comes of the flow says as much."""
    rig = Between()
    rig.from_origin(of_flow(OPEN, payload=b"open", limit=1 << 20))
    rig.from_agent(of_flow(RESUME_ACK))
    assert rig.owner.opened == [], "an agent that still dials says that, too"
    rig.from_agent(first)
    assert rig.owner.opened == [cid(1)]
    rig.from_agent(first, of_flow(OPEN_ACK))
    assert rig.owner.opened == [cid(1)]


def test_who_is_told_of_an_accepted_open_may_forget_the_relay(monkeypatch):
    """Nobody else holds it then, but whoever tells."""
    rig = Between()
    rig.open()
    monkeypatch.setattr(rig.owner, "relay_opened", lambda relay: relay.forget())
    rig.from_origin(of_flow(OPEN, 2, payload=b"open"))
    rig.from_agent(of_flow(OPEN_ACK, 2), data(2))
    assert rig.owner.over == [cid(2)] and list(rig.owner.relays) == [cid(1)]
    assert [(frame.type, frame.cid) for frame in rig.to_origin()] == [(OPEN_ACK, cid(2))]


def test_a_hub_that_is_fenced_is_told_and_so_is_the_agent():
    rig = Between()
    rig.open()
    rig.from_origin(of_flow(DETACH, code=Reason.LINK_LOST))
    assert rig.mesh.stale == []
    rig.from_origin(of_flow(DETACH, code=Reason.STALE_EPOCH, seq=7))
    assert rig.mesh.stale == [(cid(1), 7)]
    assert [(frame.code, frame.seq) for frame in rig.to_agent()] == [(Reason.LINK_LOST, 0), (Reason.STALE_EPOCH, 7)]


# flows of others that we do not have


@pytest.mark.parametrize("type_", [OPEN_ACK, DATA, FIN, ACK, RESUME_ACK], ids=str)
def test_a_flow_of_another_hub_is_to_wait(type_):
    rig = Between()
    for _ in range(3 if type_ is not OPEN_ACK else 1):
        rig.from_agent(of_flow(type_, payload=b"x" * (type_ is DATA)))
    assert [(frame.type, frame.code, frame.epoch, frame.cid) for frame in rig.to_agent()] == [
        (DETACH, Reason.LINK_LOST, 1, cid(1))
    ]
    rig.tick()
    rig.to_agent()
    rig.from_agent(of_flow(type_, payload=b"x" * (type_ is DATA)))
    assert [frame.type for frame in rig.to_agent()] == [DETACH]


def test_not_so_one_of_our_own_or_one_that_ended_lately():
    rig = Between()
    own = encode(DATA, cid=b"owner..." + bytes(8), epoch=1, payload=b"x")
    rig.from_agent(own)
    assert [(frame.type, frame.code) for frame in rig.to_agent()] == [(RST, Reason.UNKNOWN_FLOW)]
    rig.open()
    rig.from_origin(of_flow(RST, code=Reason.CLIENT_RESET))
    rig.to_agent()
    rig.from_agent(data(), of_flow(ACK, ack=1), of_flow(FIN, seq=100))
    assert rig.to_agent() == [] and rig.owner.context.duplicates == 3


def test_what_follows_a_refused_open_gets_no_answer():
    """However soon after it the next tick is."""
    rig = Between()
    rig.from_origin(of_flow(OPEN, epoch=3, payload=b"open"), data(1, 0, 10, epoch=3))
    assert [(frame.type, frame.code) for frame in rig.to_origin()] == [(RST, Reason.NOT_OWNER)]
    rig.tick()
    rig.to_origin()
    rig.from_origin(data(1, 10, 10, epoch=3), of_flow(FIN, epoch=3, seq=20))
    assert rig.to_origin() == []


# floods


def arrives(wire, data):
    """In as many reads as the carrier makes of it."""
    while data and not wire.lost:
        view = wire.protocol.get_buffer(-1)
        piece, data = data[: len(view)], data[len(view) :]
        view[: len(piece)] = piece
        wire.protocol.buffer_updated(len(piece))


def test_no_agent_can_end_a_link_between_hubs():
    """Noise is counted where it comes in."""
    cluster = Cluster()
    near, far = cluster.talk()
    owner = cluster.owners[0]
    session, wire = owner.current, cluster.agent.wire
    for frame in [
        of_flow(ACK, limit=5),
        of_flow(FIN, seq=7),
        of_flow(OPEN_ACK),
        of_flow(RESUME_ACK),
        of_flow(ACK, epoch=9),
    ]:
        arrives(session.wire, message(frame * 700))
        session.link.tick(cluster.time.now, 5.0, 15.0, 30.0)  # which judges 700 of them harmless
        for end in cluster.ends:
            end.turns.run()
        for cable in cluster.meshes.values():
            cable.carry(True, 1 << 30), cable.carry(False, 1 << 30)
    for link in (cluster.origin.way.link, owner.up.link):
        link.tick(cluster.time.now + 0.5, 5.0, 15.0, 30.0)
        assert not link.closed
    arrives(session.wire, message(of_flow(RESUME_ACK) * 2000))
    assert session.ended == [Reason.FLOOD] and wire.lost is False


def test_an_agent_that_asks_for_flows_that_no_hub_has_ends_its_own_tunnel():
    """Not the link between the hubs that carry the question on, which many agents share."""
    cluster = Cluster()
    cluster.talk()
    owner = cluster.owners[0]
    session = owner.current
    for number in range(67_000):
        unknown = cluster.origin.instance + number.to_bytes(8, "big")
        noisy = message(encode(RESUME, cid=unknown, epoch=session.link.epoch, payload=bytes(16)))
        arrives(session.wire, noisy)
        for end in cluster.ends:
            end.turns.run()
        for cable in cluster.meshes.values():
            cable.carry(True, 1 << 30), cable.carry(False, 1 << 30)
        cluster.tunnel.carry(False, 1 << 30)
        if number == 60_000:
            session.link.tick(cluster.time.now + 0.5, 5.0, 15.0, 30.0)
            assert not session.link.closed and len(owner.relays) == 1
    for link in (cluster.origin.way.link, owner.up.link):
        link.tick(cluster.time.now + 1.0, 5.0, 15.0, 30.0)
        assert not link.closed
    session.link.tick(cluster.time.now + 1.0, 5.0, 15.0, 30.0)
    assert session.ended == [Reason.FLOOD]


@pytest.mark.parametrize(
    "frame",
    [
        of_flow(ACK, limit=5),
        of_flow(FIN, seq=7),
        of_flow(OPEN_ACK),
        of_flow(RESUME_ACK),
        of_flow(RESUME, payload=bytes(16)),
    ],
    ids=lambda frame: FrameType(frame[0]).name,
)
def test_what_an_agent_repeats_ends_its_own_tunnel(frame):
    rig = Between()
    rig.open()
    rig.from_agent(frame * 1100)
    rig.tick()
    assert rig.tunnel.ended == [Reason.FLOOD] and not rig.mesh.link.closed


@pytest.mark.parametrize("type_", [DETACH, GAP], ids=str)
def test_what_only_a_relay_may_say_ends_the_agents_tunnel_and_is_not_passed_on(type_):
    rig = Between()
    rig.open()
    rig.from_agent(of_flow(type_, epoch=2) + of_flow(type_, 2))  # of another epoch, of an unknown flow: dropped
    assert rig.tunnel.ended == []
    rig.from_agent(of_flow(type_, code=Reason.STALE_EPOCH if type_ is DETACH else 0, seq=9 * (type_ is DETACH)))
    assert rig.tunnel.ended == [Reason.PROTOCOL_ERROR] and not rig.mesh.link.closed
    assert [(frame.type, frame.code) for frame in rig.to_origin()] == [(DETACH, Reason.LINK_LOST)]  # it is lost


def test_relayed_flows_count_where_noise_is_weighed():
    """A tunnel with many flows may make more of it, whoever their clients' hub is."""
    rig = Between()
    for number in range(1, 201):
        rig.open(number)
    rig.from_agent(of_flow(ACK) * 1700)
    rig.tick()
    assert rig.tunnel.ended == []
    rig.from_agent(of_flow(ACK) * 1900)
    rig.tick()
    assert rig.tunnel.ended == [Reason.FLOOD]


def test_no_agent_can_have_a_malformed_frame_passed_on():
    """Cut behind its first byte this one would say a number that no frame may say; the other hub would end the link."""
    rig = Between()
    rig.open()
    wired = bytearray(data(1, (1 << 62) - 2, 2))
    wired[32:40] = ((1 << 62) - 1).to_bytes(8, "big")
    rig.from_agent(bytes(wired), cut=HEADER + 9)
    assert rig.tunnel.ended == [Reason.PROTOCOL_ERROR] and [frame.type for frame in rig.to_origin()] == [DETACH]
    rig = Between()
    relay = rig.open()
    with pytest.raises(ValueError):
        rig.mesh.link.forward(relay.up, RESUME, bytes(16385))
    assert rig.to_origin() == []


def test_a_gap_in_every_flow_at_once_is_no_flood():
    cluster = Cluster(owner={"queue_depth": 150})
    flows = [cluster.talk()[0] for _ in range(150)]
    block(cluster.owners[0].current)
    block(cluster.owners[0].up)
    for number, flow in enumerate(flows):
        for socket in cluster.sockets(flow):
            socket.send(stream(number, 0, 3000))
            cluster.settle()
            socket.send(stream(number, 3000, 3000))
    cluster.settle()
    assert all(handler.link.drops_queue for handler in (cluster.owners[0].current, cluster.owners[0].up))
    block(cluster.owners[0].current, False)
    block(cluster.owners[0].up, False)
    cluster.rest()
    cluster.check(0.5)
    for number, flow in enumerate(flows):
        for socket in cluster.sockets(flow):
            assert socket.received == stream(number, 0, 6000)
    assert not any(link.closed for link in cluster.links()) and cluster.agent.ended == []


@pytest.mark.parametrize("opened", [True, False])
def test_links_between_hubs_that_follow_each_other_closely_are_no_flood(opened):
    """A hub that is upgraded is lost to the owner, comes back, and the second of two links that were dialled at once
    takes the place of the first. Each time all its flows are asked for, and the agent, which is farther away, asks for
    those that have just opened: answers and askings cross."""
    cluster = Cluster()
    owner = cluster.owners[0]
    tunnel = owner.current
    flows = [cluster.talk()[0] for _ in range(60)] if opened else [cluster.origin.connect() for _ in range(60)]
    cluster.settle()
    for far in cluster.agent.dials:
        cluster.agent.accept(far)
    for _ in range(5):
        cluster.link(owner)
        moved = True
        while moved:  # all but what the agent says
            moved = any(cluster.meshes[owner].carry(up, 1 << 40) for up in (True, False))
            moved = cluster.tunnel.carry(False, 1 << 40) or moved
            moved = any(end.turns.run() for end in cluster.ends) or moved
    cluster.rest()
    assert tunnel.ended == [] and cluster.agent.ended == []
    for number, flow in enumerate(flows):
        for socket in cluster.sockets(flow):
            socket.send(stream(number, 0, 100))
    cluster.settle()
    for number, flow in enumerate(flows):
        assert [socket.received for socket in cluster.sockets(flow)] == [stream(number, 0, 100)] * 2


# flows through relays

SIZE = 300_000


@pytest.mark.parametrize("raw", [True, False], ids=["stream", "websocket"])
@pytest.mark.parametrize("cut", [1, 7, 55, 56, 57, 4096, 1 << 30])
def test_cut_everywhere(raw, cut):
    """Each byte alone becomes a frame of its own at the relay: few of them will do."""
    cluster = Cluster(raw=raw)
    near, far = cluster.talk()
    client, target = cluster.sockets(near)
    size = 200 if cut < 10 else 3000 if cut < 100 else SIZE
    client.send(stream(1, 0, size))
    target.send(stream(2, 0, size))
    client.fin()
    cluster.rest(cut=cut)
    target.fin()
    cluster.rest(cut=cut)
    assert target.received == stream(1, 0, size) and client.received == stream(2, 0, size)
    assert client.saw_eof and target.saw_eof and near.closed and far.closed
    gone(cluster)


def gone(cluster):
    for owner in cluster.owners:
        assert owner.relays == {} and owner.context.relayed == 0
        for link in owner.links:
            assert link.lanes == {} and (link.relay_frames, link.relay_bytes, link.queued) == (0, 0, 0)
    for end in (cluster.origin, cluster.agent):
        assert end.flows == {} and end.context.pool.held == 0


LOSSES = {
    "mesh": lambda cluster: cluster.link(cluster.owners[0]),
    "mesh, gone for a while": lambda cluster: (
        cluster.meshes[cluster.owners[0]].cut(),
        cluster.rest(),
        cluster.link(cluster.owners[0]),
    ),
    "tunnel": lambda cluster: (cluster.tunnel.cut(), cluster.rest(), cluster.claim(cluster.owners[0])),
    "tunnel, back before its end was seen": lambda cluster: cluster.claim(cluster.owners[0]),
    "the owner": lambda cluster: (
        cluster.tunnel.cut(),
        cluster.meshes[cluster.owners[0]].cut(),
        cluster.rest(),
        cluster.claim(cluster.owners[1]),
    ),
    "both, and both back": lambda cluster: (
        cluster.tunnel.cut(),
        cluster.meshes[cluster.owners[0]].cut(),
        cluster.rest(),
        cluster.link(cluster.owners[0]),
        cluster.claim(cluster.owners[0]),
    ),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("before", ["open", "client ended", "target ended"])
def test_a_loss_costs_no_byte_and_leaves_nothing(loss, before):
    cluster = Cluster(origin={"kernel": 10_000}, owner={"kernel": 10_000}, agent={"kernel": 10_000})
    near, far = cluster.talk()
    client, target = cluster.sockets(near)
    for socket, seed, ended in ((client, 1, "client ended"), (target, 2, "target ended")):
        socket.send(stream(seed, 0, 1000))
        cluster.rest()
        if before == ended:
            socket.fin()
            cluster.rest()
        else:
            socket.send(stream(seed, 1000, SIZE))
    cluster.carry(70_000)
    loss(cluster)
    cluster.rest()
    cluster.check(2.0)  # whoever was told to wait asks
    cluster.rest()
    for socket, other, seed, ended in ((client, target, 1, "client ended"), (target, client, 2, "target ended")):
        assert other.received == stream(seed, 0, 1000 if before == ended else 1000 + SIZE)
        if before != ended:
            socket.fin()
    cluster.rest()
    assert client.saw_eof and target.saw_eof and not client.saw_reset and not target.saw_reset
    assert cluster.origin.reasons == cluster.agent.reasons == {near.cid: [Reason.CLOSED]}
    gone(cluster)


@pytest.mark.parametrize("side", ["client", "target"])
def test_a_reset_arrives_behind_the_bytes_before_it(side):
    cluster = Cluster()
    near, far = cluster.talk()
    client, target = cluster.sockets(near)
    source, sink = (client, target) if side == "client" else (target, client)
    source.send(stream(1, 0, 50_000))
    source.reset()
    cluster.rest()
    assert sink.received == stream(1, 0, 50_000) and sink.saw_reset
    gone(cluster)


def test_a_reset_with_bytes_in_flight_the_other_way():
    cluster = Cluster()
    near, far = cluster.talk()
    client, target = cluster.sockets(near)
    client.send(stream(1, 0, 50_000))
    client.fin()
    target.reset()
    cluster.rest()
    assert client.saw_reset and cluster.origin.reasons[near.cid] == [Reason.TARGET_RESET]
    gone(cluster)


def test_dropped_frames_come_again_and_the_answer_may_be_dropped_too():
    """The answer to the first asking is lost in a second overflow: the relay says so, and then it is asked again."""
    cluster = Cluster(owner={"queue_depth": 2})
    near, far = cluster.talk()
    client, target = cluster.sockets(near)
    filler = cluster.sockets(cluster.talk()[0])[1]
    up, cable = cluster.owners[0].up, cluster.meshes[cluster.owners[0]]
    sent = 0

    block(up)
    for _ in range(5):
        target.send(stream(2, sent, 500))
        sent += 500
        cluster.settle()
    block(up, False)
    cable.carry(True, 1 << 30)  # M_GAP arrives, and is answered by M_RESUME …
    cable.carry(False, 1 << 30)
    block(up)
    for _ in range(3):  # … whose answer finds the link blocked, and its queue full
        filler.send(b"x")
        cluster.agent.turns.run()
        cluster.tunnel.carry(True, 1 << 30)
    assert up.link.relay_frames == 2
    cluster.settle()
    block(up, False)
    cluster.settle()
    assert up.link.counters()[1]["M_GAP"] >= 2 and client.received != stream(2, 0, sent)
    cluster.check(1.1)
    cluster.rest()
    assert client.received == stream(2, 0, sent)


def test_a_gap_while_the_target_is_dialled_is_asked_for_when_it_is_connected():
    """An M_RESUME before would say that the target is there."""
    cluster = Cluster(owner={"queue_depth": 1})
    near = cluster.origin.connect()
    cluster.settle()
    block(cluster.owners[0].current)
    client = cluster.origin.sockets[near.cid]
    for k in range(4):
        client.send(stream(1, k * 100, 100))
        cluster.settle()
    block(cluster.owners[0].current, False)
    cluster.settle()
    assert cluster.owners[0].current.link.drops_queue and near.opening
    far = cluster.agent.dials.pop()
    cluster.agent.accept(far)
    cluster.rest()
    assert not near.opening and cluster.agent.sockets[near.cid].received == stream(1, 0, 400)


def test_a_new_epoch_by_the_same_link():
    """The agent claims anew at the hub it was at: the flow changes its epoch, not its link."""
    cluster = Cluster()
    near, far = cluster.talk()
    link = near.path
    cluster.claim(cluster.owners[0])
    cluster.rest()
    assert near.path is link and near.epoch == 2 and link.flows == {near.cid: near}
    client, target = cluster.sockets(near)
    target.send(stream(2, 0, 1000))
    cluster.rest()
    assert client.received == stream(2, 0, 1000)


def test_late_frames_of_a_fenced_owner_change_nothing():
    cluster = Cluster()
    near, far = cluster.talk()
    client, target = cluster.sockets(near)
    target.send(stream(2, 0, 100))
    cluster.agent.turns.run()
    frozen = cluster.tunnel  # the bytes are on their way to the old owner
    cluster.claim(cluster.owners[1])
    cluster.carry()
    cluster.settle()
    assert client.received == stream(2, 0, 100) and near.epoch == 2
    old = cluster.owners[0]
    link = cluster.origin.ways[old].link
    view = cluster.origin.ways[old].wire.protocol.get_buffer(-1)
    late = (
        encode(DATA, cid=near.cid, epoch=1, seq=100, payload=b"stale")
        + encode(RST, cid=near.cid, epoch=1, code=2)
        + encode(RESUME, cid=near.cid, epoch=1, payload=near.secret)
    )
    view[: len(late)] = late
    cluster.origin.ways[old].wire.protocol.buffer_updated(len(late))
    assert not near.closed and near.epoch == 2 and client.received == stream(2, 0, 100) and link.stale_epoch >= 2
    cluster.rest()
    assert old.up.stale == [] or old.up.stale == [(near.cid, 2)]
    assert frozen.near.lost or frozen.far.lost


def test_credit_is_tuned_to_the_whole_way():
    """Windows grow by the round trip that the link and the relay's say together."""
    cluster = Cluster(
        agent={"window": 64 * KIB, "window_max": 1 << 20}, origin={"window": 64 * KIB, "window_max": 1 << 20}
    )
    for link in cluster.links():
        link.ping()
    for _ in range(3):
        cluster.time.now += 0.05
        cluster.carry()
        for end in cluster.ends:
            end.turns.run()
    near, far = cluster.talk()
    client, target = cluster.sockets(near)
    before = near.window
    sent = 0
    for _ in range(30):
        target.send(stream(2, sent, 60_000))
        sent += 60_000
        cluster.time.now += 0.02  # far below the round trip of both links together
        cluster.settle()
    assert near.window > before and near.window <= 1 << 20
    cluster.rest()
    assert client.received == stream(2, 0, sent)


def test_a_relay_may_not_claim_any_round_trip():
    """Whoever says hours would have windows grow with each half of one."""
    cluster = Cluster()
    way = cluster.origin.way
    for trip, pause, grows in ((2_000_000, 0.5, True), (1 << 61, 5.0, False)):  # slower than any round trip there is
        near = cluster.origin.connect()
        cluster.settle()
        window = near.window
        frames_in = [encode(OPEN_ACK, cid=near.cid, epoch=1, seq=trip, limit=64 * KIB)]
        frames_in += [
            encode(DATA, cid=near.cid, epoch=1, seq=seq, payload=stream(2, seq, 16 * KIB))
            for seq in range(0, 64 * KIB, 16 * KIB)
        ]
        for frame in frames_in:
            view = way.wire.protocol.get_buffer(-1)
            view[: len(frame)] = frame
            way.wire.protocol.buffer_updated(len(frame))
            cluster.origin.turns.run()
            cluster.time.now += pause
        assert (near.window > window) is grows and near.rcv_nxt == 64 * KIB


def test_whoever_asks_to_resume_gets_the_answer_though_all_is_acknowledged():
    """The last end crosses the asking: both directions are over before the answer has passed."""
    rig = Between()
    rig.open()
    rig.from_origin(of_flow(FIN, seq=0))
    rig.from_agent(of_flow(ACK, ack=1))
    rig.to_agent(), rig.to_origin()
    rig.from_origin(of_flow(RESUME, payload=bytes(16)))
    rig.from_agent(of_flow(FIN, seq=0, ack=1))
    rig.from_origin(of_flow(ACK, ack=1))
    rig.to_origin()
    assert rig.owner.relays
    rig.from_agent(of_flow(RESUME_ACK, ack=1))
    assert [frame.type for frame in rig.to_origin()] == [RESUME_ACK] and rig.owner.relays == {}


# relays themselves


def test_a_relay_is_forgotten_once():
    rig = Between()
    relay = rig.open()
    lane = relay.up
    relay.forget()
    relay.forget()
    assert rig.owner.over == [cid(1)] and lane.relay is None and relay.tunnel is rig.tunnel.link


def test_a_relay_that_was_replaced_takes_nothing_with_it():
    rig = Between()
    old = rig.open()
    mesh, tunnel = rig.mesh.link, rig.tunnel.link
    new = Relay(cid(1), 1, tunnel, rig.owner)
    new.connect(mesh)
    old.disconnect()
    old.forget()
    assert mesh.lanes == {cid(1): new.down} and tunnel.lanes == {cid(1): new.up} and rig.owner.over == [cid(1)]


def test_the_rest_of_a_frame_whose_flow_has_ended_goes_nowhere_special():
    rig = Between()
    rig.open()
    wired = message(data(1, 0, 1000) + encode(PING, seq=9))
    rig.feed(rig.tunnel.wire, wired[:500])
    rig.from_origin(of_flow(RST, code=Reason.CLIENT_RESET))
    rig.feed(rig.tunnel.wire, wired[500:])
    assert rig.owner.relays == {} and not rig.tunnel.link.closed
    assert {frame.type for frame in rig.to_agent()} == {RST, FrameType.PONG}


@pytest.mark.parametrize("which", ["mesh", "tunnel"])
def test_a_link_that_ends_while_it_is_written_to(which):
    """A write that fails may end the link at once, in the middle of the other one's read."""
    rig = Between()
    rig.open()
    victim, other = (rig.mesh, rig.tunnel) if which == "mesh" else (rig.tunnel, rig.mesh)
    some = [data(1, seq, 60_000) + encode(200, flags=IGNORABLE) for seq in range(0, 240_000, 60_000)]

    def fail(*_):
        Wire.close(victim.wire)
        victim.link.lost(Reason.CONNECTION_LOST)

    victim.wire.write = victim.wire.writelines = fail
    (rig.from_agent if which == "mesh" else rig.from_origin)(*some)
    assert victim.ended == [Reason.CONNECTION_LOST] and other.ended == [] and rig.nothing_waits()
    assert DETACH in [frame.type for frame in (rig.to_agent() if which == "mesh" else rig.to_origin())]


def test_handlers_are_asked_for_nothing_on_the_way(monkeypatch):
    """Only opens and resumes come to the handlers; all else of a relayed flow stays in the core."""
    rig = Between()
    rig.open()
    for name in dir(Handler):
        if name.startswith("_on_frame__") or name == "foreign":
            monkeypatch.setattr(Handler, name, lambda *_: 1 / 0)
    rig.from_agent(data(), of_flow(ACK, ack=1), of_flow(RESUME_ACK), of_flow(FIN, seq=100))
    rig.from_origin(data(), of_flow(ACK, ack=101), of_flow(GAP), of_flow(FIN, seq=100))
    rig.from_agent(of_flow(ACK, ack=101))
    assert rig.owner.relays == {} and rig.owner.over == [cid(1)]
