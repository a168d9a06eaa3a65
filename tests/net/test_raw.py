"""The bare stream as a carrier: on the wire of the tests, and on real sockets whose far side is slow, silent, or
gone; there tunnels, too, which send in the same way."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop
from core.ends import KIB, Hub, stream
from core.raw import bare_frames, frames
from core.virtual import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from support.until import SCENARIO_SEC, until

from ncfast._frames import FrameType, encode
from ncfast.core.context import FlowContext
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.relay import Relay
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.links import LinkBounds, carry_stream, carry_websocket
from ncfast.net.seam import Net
from ncfast.net.socket import SocketEnd

AUTH, DATA, GOAWAY = FrameType.AUTH, FrameType.M_DATA, FrameType.GOAWAY
CID = b"a flow of others"
BOUNDS = LinkBounds(
    max_inflight_bytes=8 << 20,
    queue_depth=10_000,
    user_timeout_sec=15.0,
    notsent_lowat=128 * KIB,
    max_message_bytes=1 << 20,
)


class Handler:
    def __init__(self):
        self.bodies = []
        self.going = []
        self.ended = []
        self.end = asyncio.Event()

    def foreign(self, cid):
        return False

    def _on_frame__hello(self, body):
        pass

    def _on_frame__auth(self, code, body):
        self.bodies.append(body)

    def _on_frame__goaway(self, reason):
        self.going.append(reason)

    def link_ended(self, link, reason, detail):
        self.ended.append(reason)
        self.end.set()


class Rig:
    """A carrier on the tests' wire."""

    def __init__(self):
        self.time = Time()
        self.end = Hub(self.time, kernel=1 << 30)
        self.handler = Handler()
        self.link, self.wire = self.end.link(self.handler, raw=True)

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

    def said(self):
        return bare_frames(self.wire.take())


BODIES = st.lists(st.one_of(st.binary(max_size=300), st.builds(bytes, st.integers(0, 16384))), max_size=6)
CUTS = st.lists(st.one_of(st.integers(1, 20), st.integers(1, 30_000)), max_size=30)


@given(bodies=BODIES, cuts=CUTS)
@settings(max_examples=100)
def test_frames_follow_each_other_with_nothing_in_between(bodies, cuts):
    rig = Rig()
    wired = b"".join(encode(AUTH, payload=body) for body in bodies)
    rig.feed(wired, cuts)
    assert rig.handler.bodies == bodies and rig.handler.ended == []
    for body in bodies:
        rig.link.send(AUTH, body)
    assert rig.wire.take() == wired


def test_bytes_that_came_before_the_carrier_did():
    """Any number of them; the buffer of the loop is smaller."""
    rig = Rig()
    bodies = [bytes([k]) * 16384 for k in range(40)]
    rig.wire.protocol.feed(b"".join(encode(AUTH, payload=body) for body in bodies))
    assert rig.handler.bodies == bodies


def test_the_last_word_says_why():
    rig = Rig()
    rig.link.fail(Reason.DUPLICATE, "the other link stays")
    rig.link.fail(Reason.INTERNAL)
    assert [(frame.type, frame.code) for frame in rig.said()] == [(GOAWAY, Reason.DUPLICATE)]
    assert rig.handler.ended == [Reason.DUPLICATE] and rig.wire.closing and not rig.wire.aborted


def test_a_malformed_frame_ends_the_link_and_the_peer_is_told():
    rig = Rig()
    rig.feed(encode(AUTH, payload=b"before") + bytes(56) + encode(AUTH, payload=b"behind"))
    assert rig.handler.bodies == [b"before"] and rig.handler.ended == [Reason.PROTOCOL_ERROR]
    assert [(frame.type, frame.code) for frame in rig.said()] == [(GOAWAY, Reason.PROTOCOL_ERROR)]


def test_nothing_is_heard_or_said_after_the_end():
    rig = Rig()
    rig.link.fail(Reason.GOING_AWAY)
    rig.said()
    rig.feed(encode(AUTH, payload=b"late"))
    rig.link.send(AUTH, b"late")
    assert rig.handler.bodies == [] and rig.said() == []


@pytest.mark.parametrize("ends", ["by us", "by the peer"])
def test_a_peer_that_does_not_read_is_cut(ends):
    """Closing waits for a peer that takes what was written, and one need not."""
    rig = Rig()
    if ends == "by us":
        rig.link.fail(Reason.FLOOD)
    else:
        rig.wire.protocol.eof_received()
    rig.time.now += 4.9
    rig.end.turns.run()
    assert not rig.wire.aborted
    rig.time.now += 0.2
    rig.end.turns.run()
    assert rig.wire.aborted


@pytest.mark.parametrize("reason", [Reason.KEEPALIVE_TIMEOUT, Reason.STALLED])
def test_a_dead_peer_is_cut_at_once_and_told_nothing(reason):
    rig = Rig()
    rig.link.fail(reason)
    assert rig.wire.aborted and rig.said() == []


@pytest.mark.parametrize("exc", [None, ConnectionResetError()])
def test_a_lost_connection_ends_the_link_once(exc):
    rig = Rig()
    assert rig.wire.protocol.eof_received() is False
    rig.wire.protocol.connection_lost(exc)
    assert rig.handler.ended == [Reason.CONNECTION_LOST]


def test_a_goaway_with_a_frame_cut_off_behind_it():
    rig = Rig()
    rig.feed(encode(GOAWAY, code=Reason.GOING_AWAY) + encode(AUTH, payload=b"never whole")[:-1])
    rig.wire.protocol.eof_received()
    assert (
        rig.handler.going == [Reason.GOING_AWAY]
        and rig.handler.bodies == []
        and rig.handler.ended == [Reason.CONNECTION_LOST]
    )


# on real sockets


def run(main):
    async def limited():
        async with asyncio.timeout(SCENARIO_SEC):
            await main(Process(Net(asyncio.get_running_loop())))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


class Before(asyncio.Protocol):
    """Has the connection until the carrier takes it."""

    def __init__(self):
        self.made = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.made.set_result(transport)


class Process:
    def __init__(self, net):
        self.net = net
        self.context = FlowContext(net.clock)
        self.context.owner = self
        self.receive_buffer = ReceiveBuffer()
        self.opened, self.over = [], []

    async def link(self, *, small=False, carry=carry_stream, said=b"", **how):
        """A link, and the test's end of its connection; `said` was written before it."""
        near, far = socket.socketpair()
        for sock in (near, far):
            sock.setblocking(False)
            if small:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4608)
        before = Before()
        self.net.opened()
        self.net.adopt(near, before)
        transport = await before.made
        transport.write(said)
        handler = Handler()
        link, _ = carry(self, transport, handler, BOUNDS, peer="test", **how)
        return link, handler, far

    async def client(self, link):
        """A flow on the link, and the test's end of its client's connection, which takes a few KiB at a time."""
        far = socket.socket()
        with socket.create_server(("127.0.0.1", 0)) as server:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4608)
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
            far.connect(server.getsockname())
            near, _ = server.accept()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        for sock in (near, far):
            sock.setblocking(False)
        self.flow = Flow(self.context, CID, bytes(16), b"open", self)
        self.net.adopt_end(near, SocketEnd(self.context, self, self.net.call_later, *[Reason.CLIENT_RESET] * 2))
        self.flow.attach(link, resumed=True)
        return self.flow, far

    def socket_ready(self, end):
        end.carry(self.flow)

    def socket_gone(self, end):
        pass

    def flow_opened(self, flow):
        pass

    def flow_closed(self, flow, reason):
        self.over.append(reason)

    def relay_opened(self, relay):
        self.opened.append(relay)

    def relay_ended(self, relay):
        self.over.append(relay)


async def read(sock, count=1 << 30):
    """Bytes until `count`, or the end of the stream."""
    loop, out = asyncio.get_running_loop(), bytearray()
    while len(out) < count:
        try:
            piece = await loop.sock_recv(sock, min(65536, count - len(out)))
        except ConnectionResetError:
            return bytes(out)
        if not piece:
            return bytes(out)
        out += piece
    return bytes(out)


@pytest.mark.parametrize(
    ("how", "heard"),
    [
        ({}, bare_frames),
        ({"carry": carry_websocket, "client": False}, frames),
        ({"carry": carry_websocket, "client": True}, frames),
    ],
    ids=["mesh", "hub", "agent"],
)
def test_partial_writes_keep_their_order(how, heard):
    """A kernel that takes a few KiB at a time, of single frames and of many in a write."""

    async def main(process):
        link, handler, far = await process.link(small=True, **how)
        bodies = [stream(k, 0, 16384) for k in range(100)]
        for body in bodies:
            link.send(AUTH, body)
        assert not link.writable
        got = asyncio.create_task(read(far))
        await until(lambda: link.writable and not link.queued, "room again")
        link.fail(Reason.SUPERSEDED)
        assert [frame.payload for frame in heard(await got) if frame.type == AUTH] == bodies
        assert handler.ended == [Reason.SUPERSEDED]

    run(main)


@pytest.mark.parametrize("size", [1, 4096, 65536])
def test_what_a_relay_passes_on_survives_the_buffer_it_came_in(size):
    """Far more than both kernels hold, and a buffer that every read of the process goes through."""
    count = min(3_000_000 // size, 4000)

    async def main(process):
        tunnel, _, agent = await process.link(small=True)
        mesh, _, origin = await process.link(small=True)
        other, noise, bystander = await process.link()
        tunnel.establish(1)
        relay = Relay(CID, 1, tunnel, process)
        relay.connect(mesh)
        loop = asyncio.get_running_loop()
        wired = b"".join(
            encode(DATA, cid=CID, epoch=1, seq=k * size, payload=stream(1, k * size, size)) for k in range(count)
        )

        async def disturb():
            while True:
                await loop.sock_sendall(bystander, encode(FrameType.HELLO, payload=b"\xee" * 16384))  # no noise

        disturber = asyncio.create_task(disturb())
        sent = asyncio.create_task(loop.sock_sendall(agent, wired))
        got, left = b"", count * size  # a frame may have become several on the way
        while left:
            header = await read(origin, 56)
            payload = await read(origin, int.from_bytes(header[4:8], "big"))
            assert int.from_bytes(header[32:40], "big") == len(got) and header[0] == DATA
            got += payload
            left -= len(payload)
        await sent
        disturber.cancel()
        assert got == stream(1, 0, count * size)
        assert (mesh.relay_frames, mesh.relay_bytes, mesh.drops_queue, process.context.relayed) == (0, 0, 0, 0)
        assert noise.ended == []

    run(main)


@pytest.mark.parametrize(
    "sizes",
    [[1] * 500, [65_000] * 4, [16_250] * 16, [5000] + [1] * 500 + [5000]],
    ids=["1", "65,000", "16,250", "mixed"],
)
@pytest.mark.parametrize("ends", ["in order", "by a reset"])
def test_what_a_read_brings_for_a_flow_goes_to_its_socket_in_order(sizes, ends):
    """Many frames in a read, the last word behind them."""
    total = sum(sizes)
    wired = stream(1, 0, total)

    async def main(process):
        link, handler, far = await process.link()
        link.establish(1)
        flow, client = await process.client(link)
        data, at = [], 0
        for size in sizes:
            data.append(encode(DATA, cid=CID, epoch=1, seq=at, payload=wired[at : at + size]))
            at += size
        last = (
            encode(FrameType.M_FIN, cid=CID, epoch=1, seq=total)
            if ends == "in order"
            else encode(FrameType.M_RST, cid=CID, epoch=1, code=Reason.TARGET_RESET)
        )
        opened = encode(FrameType.M_OPEN_ACK, cid=CID, epoch=1, limit=1000)
        await asyncio.get_running_loop().sock_sendall(far, b"".join([opened, *data, last]))
        got = await read(client)
        if ends == "in order":
            assert got == wired and (flow.rcv_nxt, flow.backlog) == (total, 0)
        else:
            await until(lambda: process.over == [Reason.TARGET_RESET], "it is over")
            assert got == wired[: len(got)]
        assert (handler.ended, process.context.bytes_in) == ([], total)

    run(main)


def test_a_flow_that_is_cut_over_what_a_read_has_brought_so_far_gets_nothing_of_the_rest():
    """More pieces than are held: the budget is found spent in the middle of the read, and the flow pays."""

    async def main(process):
        link, handler, _ = await process.link()
        link.establish(1)
        flow, client = await process.client(link)
        process.context.budget.resize(4 * KIB)
        sizes = [5000, *[1000] * 200]
        frames = [
            encode(DATA, cid=CID, epoch=1, seq=sum(sizes[:k]), payload=stream(1, sum(sizes[:k]), size))
            for k, size in enumerate(sizes)
        ]
        link.carrier.feed(encode(FrameType.M_OPEN_ACK, cid=CID, epoch=1, limit=1000) + b"".join(frames))
        assert flow.closed and process.over == [Reason.OVERLOADED] and handler.ended == []
        assert process.context.backlog == 0
        assert stream(1, 0, sum(sizes)).startswith(await read(client))

    run(main)


def test_nothing_goes_past_a_transport_that_has_dropped_what_was_before_it():
    """A connection that is over, and of which the link hears in the next turn: no hole in what the peer reads."""

    async def main(process):
        link, handler, far = await process.link(small=True)
        link.carrier.transport.abort()
        bodies = [stream(k, 0, 16384) for k in range(3)]
        link.send(AUTH, bodies[0])  # the kernel takes a part
        got = far.recv(1 << 20)
        for body in bodies[1:]:
            link.send(AUTH, body)
        got += await read(far)
        assert b"".join(encode(AUTH, payload=body) for body in bodies).startswith(got)
        await handler.end.wait()

    run(main)


def test_what_was_said_before_the_carrier_came_goes_first():
    """The handshake's last bytes, which the kernel has not taken yet."""

    async def main(process):
        said = stream(1, 0, 100 * KIB)
        link, _, far = await process.link(small=True, said=said)
        assert not link.writable
        link.send(AUTH, b"behind")
        assert await read(far, len(said)) == said
        assert await read(far, 56 + 6) == encode(AUTH, payload=b"behind")
        assert link.writable

    run(main)


def test_an_end_of_stream_and_a_reset():
    async def main(process):
        link, handler, far = await process.link()
        far.sendall(encode(AUTH, payload=b"last"))
        far.shutdown(socket.SHUT_WR)
        await handler.end.wait()
        assert handler.bodies == [b"last"] and handler.ended == [Reason.CONNECTION_LOST]
        assert await read(far) == b""  # the other direction ends too
        link, handler, far = await process.link(small=True)
        for _ in range(50):
            link.send(AUTH, bytes(16384))
        far.close()  # with bytes that nobody read: a reset
        await handler.end.wait()
        assert handler.ended == [Reason.CONNECTION_LOST]
        await until(lambda: not process.net.sockets, "the socket is closed")

    run(main)


def test_the_last_word_arrives_behind_what_the_kernel_had_not_taken():
    async def main(process):
        link, handler, far = await process.link(small=True)
        link.send(AUTH, bytes(16384))
        assert not link.writable
        link.fail(Reason.SUPERSEDED, "a newer link")
        got = bare_frames(await read(far))
        assert [(frame.type, frame.code) for frame in got] == [(AUTH, 0), (GOAWAY, Reason.SUPERSEDED)]
        await until(lambda: not process.net.sockets, "the socket is closed")

    run(main)


def test_a_slow_peer_is_cut_in_the_end(monkeypatch):
    async def main(process):
        delays = []
        process.net.call_later = lambda delay, callback, *arguments: (
            delays.append(delay),
            process.net.loop.call_later(0.02, callback, *arguments),
        )
        link, handler, far = await process.link(small=True)
        for _ in range(30):
            link.send(AUTH, bytes(16384))
        link.fail(Reason.FLOOD)
        await until(lambda: not process.net.sockets, "a peer that never reads is cut")
        assert 5.0 in delays and len(await read(far)) < 30 * 16384

    run(main)
