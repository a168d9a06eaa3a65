"""The share of a turn of the loop that each link has, whatever the size of its frames."""

from __future__ import annotations

import pytest
from core.ends import Agent, Hub
from core.raw import message
from core.virtual import Time

from ncfast._frames import FrameType, encode
from ncfast.core.errors import Reason

CID = bytes(16)
LATE = encode(FrameType.M_DATA, cid=CID, payload=b"x")  # of a flow that has ended: no noise
FULL = 262144  # bytes of the receive buffer
SHARE = 256  # frames and messages of a tunnel in a turn
WEIGHTY = 16  # of them cost as much as a frame that Python reads


class Handler:
    def __init__(self):
        self.ended = []

    def _on_frame__auth(self, code, body):
        pass

    def link_ended(self, link, reason, detail):
        self.ended.append(reason)


class Rig:
    """A link, and a far end that always has more to send."""

    def __init__(self, *, client=False, raw=False, between_hubs=False):
        self.end = (Agent if client else Hub)(Time(), kernel=1 << 30)
        self.handler = Handler()
        self.link, self.wire = self.end.link(self.handler, raw=raw, between_hubs=between_hubs)
        self.end.context.closed.record(CID, 0)
        self.waiting = b""

    def feed(self, data):
        """It arrives in one read."""
        self.wire.protocol.get_buffer(-1)[: len(data)] = data
        self.wire.protocol.buffer_updated(len(data))

    def turn(self, unit):
        """What the transport does in a turn of the loop: it reads full buffers of `unit`s while it may, at most FULL
        bytes. Returns how many bytes it took."""
        self.end.turns.run()
        taken = 0
        while taken < FULL and self.wire.reading and not self.wire.lost:
            view = self.wire.protocol.get_buffer(-1)
            while len(self.waiting) < len(view):
                self.waiting += unit * (len(view) // len(unit) + 1)
            view[:], self.waiting = self.waiting[: len(view)], self.waiting[len(view) :]
            self.wire.protocol.buffer_updated(len(view))
            taken += len(view)
        return taken


@pytest.mark.parametrize("between_hubs", [False, True], ids=["tunnel", "mesh"])
def test_small_frames_shrink_the_read_to_a_share(between_hubs):
    rig = Rig(raw=True, between_hubs=between_hubs)
    rig.turn(LATE)  # nobody can know before
    for _ in range(5):
        before = rig.link.work
        assert rig.turn(LATE) > 0
        assert rig.link.work - before <= (4 if between_hubs else 1) * SHARE + 1
    assert not rig.handler.ended


def test_reads_grow_again_with_the_frames():
    rig = Rig(raw=True)
    rig.turn(LATE)
    rig.turn(LATE)
    assert len(rig.wire.protocol.get_buffer(-1)) < FULL // 8
    rig.waiting = rig.waiting[: len(rig.waiting) % len(LATE)]  # the frame that is begun, and no more of them
    large = encode(FrameType.M_DATA, cid=CID, payload=bytes(65536))
    for _ in range(20):
        rig.turn(large)
    assert len(rig.wire.protocol.get_buffer(-1)) == FULL


def test_a_connection_that_has_had_its_share_is_read_in_the_next_turn():
    rig = Rig(raw=True)
    rig.turn(LATE)
    assert not rig.wire.reading
    rig.end.turns.run()
    assert rig.wire.reading


@pytest.mark.parametrize("client", [False, True], ids=["hub", "agent"])
@pytest.mark.parametrize("kind", ["AUTH", "WebSocket ping"])
def test_what_python_reads_counts_for_more(kind, client):
    rig = Rig(client=client)
    unit = message(encode(FrameType.AUTH)) if kind == "AUTH" else message(b"", opcode=9)
    unit = unit if not client else bytes([unit[0], unit[1] & 0x7F]) + unit[6:]  # from a hub: without a mask
    rig.feed(unit * (SHARE // (WEIGHTY + 2)))
    assert rig.wire.reading
    rig.feed(unit * 3)
    assert not rig.wire.reading and not rig.handler.ended


# floods are judged as they come: half a second of them is much


def test_a_flood_ends_before_the_tick():
    rig = Rig(raw=True)
    rig.feed(encode(FrameType.M_RST, cid=b"y" * 16) * 2000)
    assert rig.handler.ended == [Reason.FLOOD] and rig.link.counters()[0]["M_RST"] < 1100


@pytest.mark.parametrize(
    "unit",
    [message(b""), message(LATE, fin=False) + message(b"", 0, fin=False) + message(b"", 0), message(b"", fin=False)],
    ids=["messages", "fragments", "one message"],
)
def test_empty_messages_and_fragments_are_a_flood(unit):
    rig = Rig()
    end = message(b"", 0) if unit == message(b"", fin=False) else b""
    rig.feed((unit + end) * 2000)
    assert rig.handler.ended == [Reason.FLOOD]


def test_a_last_fragment_may_be_empty():
    """Some proxies end a message so."""
    rig = Rig()
    for _ in range(20):
        rig.turn(message(LATE, fin=False) + message(b"", 0))
    assert rig.link.counters()[0]["M_DATA"] > 4000 and not rig.handler.ended
