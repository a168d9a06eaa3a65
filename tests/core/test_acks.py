"""When an acknowledgement goes that no data carries, and what leaves together."""

from __future__ import annotations

from core.ends import KIB
from core.raw import hub_and_peer, of
from ncfast._frames import FrameType

DATA, ACK, FIN = FrameType.M_DATA, FrameType.M_ACK, FrameType.M_FIN
DELAY, LONG = 0.03, 0.21  # seconds, a little more than ACK_DELAY and SHORT_ACK_DELAY


def acknowledged(time, peer, after):
    """What M_ACKs have said, `after` so many seconds."""
    time.now += after
    return [frame.ack for frame in of(ACK, peer.taken())]


def begun(time, peer):
    """A flow of which ten bytes have come, and are acknowledged."""
    flow, client = peer.open()
    peer.send(DATA, flow, payload=bytes(10))
    assert acknowledged(time, peer, DELAY) == [10]  # the first goes soon
    return flow, client


def test_that_of_a_short_message_waits_longer():
    time, _, peer = hub_and_peer()
    flow, _ = begun(time, peer)
    peer.send(DATA, flow, seq=10, payload=bytes(10))
    assert acknowledged(time, peer, DELAY) == []
    assert acknowledged(time, peer, LONG) == [20]


def test_until_more_has_come():
    time, _, peer = hub_and_peer()
    flow, _ = begun(time, peer)
    for number in range(2):
        peer.send(DATA, flow, seq=10 + number * 3 * KIB, payload=bytes(3 * KIB))
        assert acknowledged(time, peer, DELAY) == [10 + 6 * KIB] * number
    assert acknowledged(time, peer, LONG) == []


def test_data_that_goes_meanwhile_carries_it():
    time, _, peer = hub_and_peer()
    flow, client = begun(time, peer)
    peer.send(DATA, flow, seq=10, payload=b"question")
    client.send(b"answer")
    (frame,) = of(DATA, peer.taken())
    assert frame.ack == 18 and acknowledged(time, peer, LONG) == []


def test_only_so_many_wait_that_half_of_the_cap_stays_free():
    time, _, peer = hub_and_peer(max_inflight=64 * KIB)
    flows = [begun(time, peer)[0] for _ in range(12)]
    for flow in flows:
        peer.send(DATA, flow, seq=10, payload=bytes(10))
    soon = acknowledged(time, peer, DELAY)
    assert soon == [20] * 3 and acknowledged(time, peer, LONG) == [20] * 9


def test_one_that_waits_for_a_link_that_is_left_is_not_sent_there():
    time, _, peer = hub_and_peer()
    flow, _ = begun(time, peer)
    peer.send(DATA, flow, seq=10, payload=bytes(10))
    flow.detach()
    assert acknowledged(time, peer, LONG) == []


def test_that_of_an_end_rides_on_our_own_end():
    time, _, peer = hub_and_peer()
    flow, client = begun(time, peer)
    peer.send(FIN, flow, seq=10)
    assert acknowledged(time, peer, 0) == []
    client.fin()
    (frame,) = of(FIN, peer.taken())
    assert frame.ack == 11 and acknowledged(time, peer, LONG) == []


def test_that_of_an_end_waits_no_longer_than_others():
    time, _, peer = hub_and_peer()
    flow, _ = begun(time, peer)
    peer.send(FIN, flow, seq=10)
    assert acknowledged(time, peer, LONG) == [11]


def test_that_of_the_second_end_goes_at_once():
    time, _, peer = hub_and_peer()
    flow, client = begun(time, peer)
    client.fin()
    assert of(FIN, peer.taken())
    peer.send(FIN, flow, seq=10)
    assert acknowledged(time, peer, 0) == [11]


def test_an_open_leaves_in_one_write_with_what_its_client_has_said():
    _, hub, peer = hub_and_peer()
    flow = hub.connect()
    hub.sockets[flow.cid].send(b"question")
    assert not peer.wire.pieces
    while hub.turns.run():
        pass
    assert len(peer.wire.borders) == 1
    assert [frame.type for frame in peer.taken()] == [FrameType.M_OPEN, DATA]
