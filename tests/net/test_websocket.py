"""The carrier against the `websockets` library's own Protocol as its peer, in both roles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from core.ends import Agent, Hub, stream
from core.raw import frames, message
from core.virtual import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State

from ncfast._frames import FrameType, encode
from ncfast.core.errors import Reason, close_code

MAX_MESSAGE = 1 << 20
HEADS = json.loads((Path(__file__).parents[1] / "vectors" / "websocket.json").read_text())


class Handler:
    def __init__(self):
        self.bodies = []
        self.ended = []

    def _on_frame__auth(self, code, body):
        self.bodies.append(body)

    def link_ended(self, link, reason, detail):
        self.ended.append(reason)


class Rig:
    """One carrier and the library at the other end of its wire; `client` says which role the carrier plays."""

    def __init__(self, client):
        self.time = Time()
        self.end = (Agent if client else Hub)(self.time, kernel=1 << 30)
        self.handler = Handler()
        self.link, self.wire = self.end.link(self.handler)
        self.library = Protocol(Side.SERVER if client else Side.CLIENT, max_size=None)

    def feed(self, data, cuts=()):
        at = 0
        for cut in [*cuts, len(data)]:
            piece = data[at : at + cut]
            while piece and not self.wire.lost:
                view = self.wire.protocol.get_buffer(-1)
                count = min(len(view), len(piece))
                view[:count] = piece[:count]
                self.wire.protocol.buffer_updated(count)
                piece = piece[count:]
            at += cut

    def carry(self, cuts=()):
        """What the library has to say arrives."""
        self.feed(b"".join(self.library.data_to_send()), cuts)

    def answers(self):
        """What the library gets from the carrier."""
        self.library.receive_data(self.wire.take())
        assert self.library.parser_exc is None
        return self.library.events_received()


@pytest.fixture(params=[False, True], ids=["hub", "agent"])
def rig(request):
    return Rig(request.param)


def binary(events):
    return b"".join(frame.data for frame in events if frame.opcode in (Opcode.BINARY, Opcode.CONT))


BODIES = st.lists(st.one_of(st.binary(max_size=300), st.builds(bytes, st.integers(0, 16384))), max_size=6)
CUTS = st.lists(st.one_of(st.integers(1, 20), st.integers(1, 30_000)), max_size=30)


@given(client=st.booleans(), bodies=BODIES, fragments=CUTS, cuts=CUTS, pings=st.sets(st.integers(0, 30)))
@settings(max_examples=150)
def test_whatever_the_cuts_and_fragments(client, bodies, fragments, cuts, pings):
    rig = Rig(client)
    wire = b"".join(encode(FrameType.AUTH, payload=body) for body in bodies)
    at, run = 0, 0
    for k, size in enumerate([*fragments, len(wire)]):
        last = at + size >= len(wire)
        if k in pings:
            rig.library.send_ping(b"ping %d" % k)
        fin = last or run == 15 or k % 3 == 2
        (rig.library.send_continuation if run else rig.library.send_binary)(wire[at : at + size], fin)
        run = 0 if fin else run + 1
        at += size
        if last:
            break
    rig.carry(cuts)
    assert rig.handler.bodies == bodies and rig.handler.ended == []
    assert [frame.data for frame in rig.answers()] == [b"ping %d" % p for p in sorted(pings) if p <= k]


@given(client=st.booleans(), bodies=BODIES)
@settings(max_examples=100)
def test_the_library_reads_what_we_send(client, bodies):
    rig = Rig(client)
    for body in bodies:
        rig.link.send(FrameType.AUTH, body)
    data = binary(rig.answers())
    assert data == b"".join(encode(FrameType.AUTH, payload=body) for body in bodies)


@pytest.mark.parametrize("size", [1, 69, 70, 71, 16384, 32711, 32712, 65479, 65480, 65536])
@pytest.mark.parametrize("client", [False, True], ids=["hub", "agent"])
def test_lengths_around_every_border(client, size):
    """65,535 bytes of message is the last with a 16-bit length, 32 KiB the first that is not joined into one buffer."""
    rig = Rig(client)
    rig.link.peer_window = 1 << 20
    hub = Hub(rig.time)
    flow = hub.connect()
    flow.attach(rig.link, resumed=True)
    hub.sockets[flow.cid].send(stream(0, 0, size))
    while rig.end.turns.run() + hub.turns.run():
        pass
    library_saw = binary(rig.answers())
    data = [frame for frame in frames(message_of(library_saw)) if frame.type is FrameType.M_DATA]
    assert b"".join(frame.payload for frame in data) == stream(0, 0, size)


def message_of(payload):
    """As `frames` reads them: one unmasked message."""
    return b"\x82\x7f" + len(payload).to_bytes(8, "big") + payload


def refusals():
    ping = encode(FrameType.PING)
    yield "unmasked", b"\x82" + bytes([len(ping)]) + ping, 1002
    yield "text", message(b"hello", opcode=1), 1002
    for bit in (0x10, 0x20, 0x40):
        wrong = bytearray(message(ping))
        wrong[0] |= bit
        yield f"reserved bit {bit:#x}", bytes(wrong), 1002
    for opcode in (3, 7, 11, 15):
        yield f"opcode {opcode}", message(b"", opcode=opcode), 1002
    yield "continuation of nothing", message(b"x", opcode=0), 1002
    yield "message in a message", message(b"", fin=False) + message(b""), 1002
    yield "ping in fragments", message(b"", opcode=9, fin=False), 1002
    yield "ping too long", message(b"x" * 126, opcode=9), 1002
    yield "close with one byte", message(b"\x03", opcode=8), 1002
    yield "close with a code of nobody's", message(b"\x03\xed", opcode=8), 1002
    yield "close with broken text", message(b"\x03\xe8\xff", opcode=8), 1007
    for size in (MAX_MESSAGE + 1, 2**63 - 1, 2**64 - 1):
        yield f"{size} bytes announced", b"\x82\xff" + size.to_bytes(8, "big") + bytes(4), 1009
    half = b"\xff" + (MAX_MESSAGE // 2 + 1).to_bytes(8, "big") + bytes(4)
    filler = (encode(99, flags=1, payload=bytes(16384)) * 32)[: MAX_MESSAGE // 2 + 1]
    yield "too long in two fragments", b"\x02" + half + filler + b"\x80" + half, 1009
    most = b"\xff" + (2**63 - 1).to_bytes(8, "big") + bytes(4)
    yield "sums that wrap around", message(b"x", fin=False) + b"\x00" + most, 1009


@pytest.mark.parametrize("wire, code", [pytest.param(wire, code, id=name) for name, wire, code in refusals()])
def test_refused_with_its_code(wire, code):
    rig = Rig(client=False)
    before = encode(FrameType.AUTH, payload=b"before")
    rig.feed(message(before) + wire + message(encode(FrameType.AUTH, payload=b"behind")))
    rig.answers()
    assert rig.library.close_rcvd.code == code
    assert rig.handler.bodies == [b"before"]
    assert rig.handler.ended == [Reason.MESSAGE_TOO_BIG if code == 1009 else Reason.PROTOCOL_ERROR]
    assert rig.wire.closing


@pytest.mark.parametrize("vector", HEADS, ids=[vector["name"] for vector in HEADS])
def test_a_length_has_one_spelling(rig, vector):
    """Heads as a hub sends them: a message that is begun there and ended in the next, or the code that it is closed
    with."""
    head = bytearray.fromhex(vector["head"])
    if rig.library.side is Side.CLIENT:
        head[1] |= 0x80
        head += bytes(4)
    if "close" in vector:
        rig.feed(bytes(head))
        rig.answers()
        assert rig.library.close_rcvd.code == vector["close"] and rig.wire.closing
        return
    filler = encode(99, flags=1, payload=bytes(16384))
    wire = filler * (vector["length"] // len(filler) + 1) + encode(FrameType.AUTH, payload=b"behind")
    rig.feed(bytes(head) + wire[: vector["length"]])
    rig.library.send_binary(wire[vector["length"] :])
    rig.carry()
    assert rig.handler.bodies == [b"behind"] and rig.handler.ended == []


def test_an_agent_refuses_masked_frames():
    rig = Rig(client=True)
    rig.feed(message(encode(FrameType.AUTH)))
    rig.answers()
    assert rig.library.close_rcvd.code == 1002 and rig.handler.bodies == []


def test_fragments_of_any_number_and_the_longest_message_are_taken(rig):
    """A byte each, and some without one, as a library may end a message."""
    wire = encode(FrameType.AUTH, payload=b"in pieces")
    rig.library.send_binary(b"", fin=False)
    for byte in wire:
        rig.library.send_continuation(bytes([byte]), fin=False)
    rig.library.send_continuation(b"", fin=True)
    body = bytes(16384 - 56)
    rig.library.send_binary(encode(FrameType.AUTH, payload=body) * (MAX_MESSAGE // 16384))
    rig.carry()
    assert rig.handler.bodies == [b"in pieces"] + [body] * (MAX_MESSAGE // 16384) and rig.handler.ended == []


def test_ping_gets_its_pong_between_messages(rig):
    rig.library.send_ping(b"are you there")
    rig.carry()
    assert [(frame.opcode, frame.data) for frame in rig.answers()] == [(Opcode.PONG, b"are you there")]
    rig.library.send_pong(b"unasked")
    rig.carry()
    assert rig.answers() == [] and not rig.link.closed


@pytest.mark.parametrize(
    "code, reason",
    [
        (1001, Reason.GOING_AWAY),
        (4003, Reason.SUPERSEDED),
        (4004, Reason.TOKEN_EXPIRED),
        (1000, Reason.CONNECTION_LOST),
        (4999, Reason.CONNECTION_LOST),
    ],
)
def test_close_by_the_peer_is_answered_and_its_reason_kept(rig, code, reason):
    rig.library.send_close(code, "bye")
    rig.carry()
    rig.answers()
    assert rig.library.close_rcvd.code == code and rig.library.state in (State.CLOSING, State.CLOSED)
    assert rig.handler.ended == [reason] and rig.wire.closing and rig.link.closed


def test_close_without_a_code(rig):
    rig.library.send_close()
    rig.carry()
    assert rig.handler.ended == [Reason.CONNECTION_LOST] and rig.wire.closing


def test_our_close_says_why(rig):
    rig.link.fail(Reason.SUPERSEDED, "a newer session")
    rig.link.fail(Reason.INTERNAL)
    rig.answers()
    assert (rig.library.close_rcvd.code, rig.library.close_rcvd.reason) == (4003, "superseded")
    assert rig.handler.ended == [Reason.SUPERSEDED] and rig.wire.closing and not rig.wire.aborted


def test_a_peer_that_does_not_take_our_close_is_cut(rig):
    rig.link.fail(Reason.FLOOD)
    rig.time.now += 4.9
    rig.end.turns.run()
    assert not rig.wire.aborted
    rig.time.now += 0.2
    rig.end.turns.run()
    assert rig.wire.aborted


@pytest.mark.parametrize("reason", [Reason.KEEPALIVE_TIMEOUT, Reason.STALLED])
def test_dead_peers_are_cut_at_once(rig, reason):
    rig.link.fail(reason)
    assert rig.wire.aborted


@pytest.mark.parametrize("exc", [None, ConnectionResetError()])
def test_a_lost_connection_ends_the_link_once(rig, exc):
    rig.wire.protocol.eof_received()
    rig.wire.protocol.connection_lost(exc)
    assert rig.handler.ended == [Reason.CONNECTION_LOST]


def test_nothing_is_heard_after_the_end(rig):
    rig.link.fail(Reason.GOING_AWAY)
    rig.library.send_binary(encode(FrameType.AUTH, payload=b"late"))
    rig.library.send_ping(b"late")
    rig.carry()
    assert rig.handler.bodies == [] and [frame.opcode for frame in rig.answers()] == [Opcode.CLOSE]


def test_masks_differ_from_message_to_message():
    rig = Rig(client=True)
    for _ in range(50):
        rig.link.send(FrameType.PING)
    keys = [bytes(piece)[2:6] for piece in rig.wire.pieces]
    assert len(set(keys)) == 50


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_that_ends_links_has_a_code_that_may_be_sent(reason):
    try:
        code = close_code(reason)
    except KeyError:
        return  # a flow's reason
    if reason is not Reason.CONNECTION_LOST:  # nobody is left to be told
        Protocol(Side.SERVER).send_close(code, reason.label)
