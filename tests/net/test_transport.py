"""The transport of a flow's plain socket, on real sockets of loopback: what asyncio promises, what an edge must not
lose, and that nothing of one connection meets another."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import resource
import socket
import struct
import tempfile
import time

import pytest
import uvloop
from core.ends import TIMEOUTS
from core.raw import hub_and_peer
from support.until import SCENARIO_SEC, until

from ncfast._frames import FrameType
from ncfast.core.context import FlowContext
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.states import FlowState
from ncfast.net.seam import Net
from ncfast.net.socket import SocketEnd

KIB = 1024
READ_TURN = 262144  # as in ncfast/net/transport.pyx
RESET = struct.pack("ii", 1, 0)
NOISE = random.Random(17).randbytes(65521)  # a prime length: no shift by a power of two goes unseen


def noise(count):
    return (NOISE * (count // len(NOISE) + 1))[:count]


class End(asyncio.Protocol):
    """Notes all that it is told."""

    def __init__(self, *, keep_open=True):
        self.keep_open = keep_open
        self.transport = None
        self.data = bytearray()
        self.told = []

    def connection_made(self, transport):
        self.transport = transport
        self.told.append("made")

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.told.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.told.append("pause")

    def resume_writing(self):
        self.told.append("resume")

    def connection_lost(self, exc):
        self.told.append(("lost", exc and getattr(exc, "errno", type(exc))))

    def handshake_failed(self, exc):
        self.told.append(("failed", exc.errno))

    @property
    def lost(self):
        return isinstance(self.told[-1], tuple)


class World:
    """Connections of loopback: one end in the test's hand, the other under a transport of ours."""

    def __init__(self, loop):
        self.loop = loop
        self.net = Net(loop)
        self.defects = []
        loop.set_exception_handler(lambda loop, context: self.defects.append(context["exception"]))
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._open = []

    def pair(self, *, send_buffer=0):
        """The far end, non-blocking, and the socket for our transport."""
        far = socket.socket()
        far.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400
        )  # small buffers under loopback's 64 KiB make it wait
        far.connect(self._server.getsockname())
        near, _ = self._server.accept()
        for sock in (far, near):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if send_buffer:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        near.setblocking(False)
        far.setblocking(False)
        self._open.append(far)
        return far, near

    def connect(self, protocol=None, **options):
        far, near = self.pair(**options)
        end = End() if protocol is None else protocol
        self.net.adopt_end(near, end)
        return far, end

    async def send(self, far, data):
        await self.loop.sock_sendall(far, data)

    async def read(self, far, count):
        """So many bytes, fewer only at the end."""
        got = bytearray()
        while len(got) < count and (data := await self.loop.sock_recv(far, min(65536, count - len(got)))):
            got += data
        return bytes(got)

    def close(self):
        for sock in (*self._open, self._server):
            sock.close()


def play(scenario):
    """`scenario(world)` on the product's loop; no callback may have failed that the scenario does not take out."""

    async def limited():
        world = World(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(SCENARIO_SEC):
                await scenario(world)
            assert not world.defects
        finally:
            world.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


def reset(far):
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    far.close()


def arrived(sock, count):
    """Whether the kernel holds at least so many bytes for the socket."""
    return len(sock.recv(count, socket.MSG_PEEK | socket.MSG_DONTWAIT)) >= count


TCP_CLOSE = b"\x07"  # include/net/tcp_states.h


def near_state(end):
    """The state of the connection, as the kernel has it."""
    return under(end).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)


def under(end):
    return end.transport.get_extra_info("socket")


# what asyncio promises


def test_it_is_made_at_once_and_closed_in_order_by_the_far_side():
    async def scenario(world):
        far, end = world.connect(End(keep_open=False))
        assert end.told == ["made"] and end.transport.is_reading()
        assert end.transport.get_extra_info("peername") == far.getsockname()
        assert end.transport.get_extra_info("sockname") == far.getpeername()
        assert end.transport.get_extra_info("cipher") is None
        await world.send(far, b"hello")
        far.shutdown(socket.SHUT_WR)
        await until(lambda: end.lost, "the end")
        assert end.told == ["made", "eof", ("lost", None)] and end.data == b"hello"
        assert await world.read(far, 1) == b""  # in order, though closing was a reset until then
        assert end.transport.get_extra_info("socket") is None and not end.transport.is_reading()

    play(scenario)


@pytest.mark.parametrize("first", ["near", "far"])
def test_each_direction_ends_by_itself(first):
    async def scenario(world):
        far, end = world.connect()
        if first == "near":
            end.transport.write_eof()
            assert await world.read(far, 1) == b""
            await world.send(far, b"still")
            await until(lambda: end.data == b"still", "what comes against our end")
            far.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in end.told, "their end")
        else:
            far.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in end.told, "their end")
            end.transport.write(b"still")
            assert await world.read(far, 5) == b"still"
            end.transport.write_eof()
        end.transport.close()
        assert await world.read(far, 1) == b""
        await until(lambda: end.lost, "the end")
        assert end.told == ["made", "eof", ("lost", None)]

    play(scenario)


def test_a_backlog_is_told_of_at_its_high_and_its_low_water_and_ends_with_our_end():
    async def scenario(world):
        far, end = world.connect(send_buffer=16 * KIB)
        end.transport.set_write_buffer_limits(64 * KIB, 16 * KIB)
        data, written = noise(3 << 20), 0
        while "pause" not in end.told:  # what both kernels hold, and the high water
            end.transport.write(data[written : written + 3000])
            written += 3000
        assert 64 * KIB < end.transport.get_write_buffer_size() <= 64 * KIB + 3000
        end.transport.write(data[written:])  # whoever does not listen is not lost
        end.transport.write_eof()
        with pytest.raises(RuntimeError):
            end.transport.write(b"behind the end")
        got = bytearray()
        while "resume" not in end.told:
            assert end.transport.get_write_buffer_size() > 16 * KIB
            got += await world.read(far, 1000)
        assert end.transport.get_write_buffer_size() <= 16 * KIB
        got += await world.read(far, len(data))
        assert got == data and end.told == ["made", "pause", "resume"]
        assert end.transport.get_write_buffer_size() == 0

    play(scenario)


def test_closing_writes_what_waits_and_then_ends_in_order():
    async def scenario(world):
        far, end = world.connect(send_buffer=16 * KIB)
        data = noise(2 << 20)
        end.transport.write(memoryview(data))
        assert end.transport.get_write_buffer_size()
        end.transport.close()
        end.transport.close()
        end.transport.write(b"ignored")
        await world.send(far, b"nobody reads this")
        assert await world.read(far, len(data)) == data
        await until(lambda: end.lost, "the end")
        assert end.told[-1] == ("lost", None) and not end.data

    play(scenario)


def test_closing_with_nothing_unread_is_an_end_and_aborting_is_a_reset():
    async def scenario(world):
        far, end = world.connect()
        end.transport.close()
        assert await world.read(far, 1) == b""
        far, end = world.connect(send_buffer=16 * KIB)
        end.transport.write(noise(2 << 20))
        end.transport.abort()
        assert end.transport.get_write_buffer_size() == 0 and end.told[-1] != ("lost", None)  # not yet
        with pytest.raises(ConnectionResetError):
            await world.read(far, 2 << 20)
        await until(lambda: end.lost, "the end")
        assert end.told[-1] == ("lost", None)
        far, end = world.connect()
        end.transport.close()
        end.transport.abort()  # in the same turn
        with pytest.raises(ConnectionResetError):
            await world.read(far, 1)

    play(scenario)


def test_a_process_that_dies_resets_what_it_has_not_ended():
    """Nobody closes: the transport goes as a process's descriptors do."""

    async def scenario(world):
        far, end = world.connect()
        end.transport.write(b"a part")
        os.close(os.dup(under(end).fileno()))
        sock, _ = end.transport.detach()
        assert await world.read(far, 6) == b"a part"
        sock.close()
        with pytest.raises(ConnectionResetError):
            await world.read(far, 1)

    play(scenario)


# edges


@pytest.mark.parametrize("paused", [False, True])
def test_bytes_before_a_reset_are_read_and_the_reset_is_told(paused):
    async def scenario(world):
        far, near = world.pair()
        data = noise(90_000)
        await world.send(far, data)
        await until(lambda: arrived(near, len(data)), "all is there")
        end = End()
        world.net.adopt_end(near, end)
        if paused:
            end.transport.pause_reading()
        reset(far)
        if paused:
            await asyncio.sleep(0.01)  # an error may be told meanwhile; the test is right either way
            assert not end.data and not end.lost
            end.transport.resume_reading()
        await until(lambda: end.lost, "the reset")
        assert end.data == data and end.told == ["made", ("lost", errno.ECONNRESET)]

    play(scenario)


def test_the_end_behind_bytes_that_came_with_it():
    async def scenario(world):
        far, near = world.pair()
        data = noise(100_000)  # less than a read, and more than one
        for count in (1, 65536, len(data)):
            far, near = world.pair()
            await world.send(far, data[:count])
            far.shutdown(socket.SHUT_WR)
            await until(lambda near=near, count=count: arrived(near, count), "all is there")
            end = End()
            world.net.adopt_end(near, end)
            await until(lambda end=end: "eof" in end.told, "the end")
            assert end.data == data[:count] and end.told == ["made", "eof"]

    play(scenario)


def test_bytes_behind_urgent_data_are_read():
    """A read stops short at the mark, with more behind it."""

    async def scenario(world):
        far, near = world.pair()
        far.send(b"before")
        far.send(b"!", socket.MSG_OOB)
        far.send(b"behind")
        end = End()
        world.net.adopt_end(near, end)
        await until(lambda: end.data == b"beforebehind", "both sides of the mark")
        far.send(b"!", socket.MSG_OOB)
        far.send(b" and on")
        await until(lambda: end.data == b"beforebehind and on", "another")

    play(scenario)


def test_a_pause_holds_back_the_very_next_byte_and_nothing_is_forgotten():
    class Sips(End):
        def data_received(self, data):
            assert self.transport.is_reading()
            super().data_received(data)
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    async def scenario(world):
        far, end = world.connect(Sips())
        data = noise(1 << 20)
        await world.send(far, data)
        far.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in end.told, "the end")
        assert end.data == data
        far, end = world.connect()
        end.transport.pause_reading()
        await world.send(far, b"one")
        assert await end_of_turns(world) and not end.data
        end.transport.resume_reading()
        end.transport.pause_reading()  # thought better of it
        assert await end_of_turns(world) and not end.data
        end.transport.resume_reading()
        end.transport.resume_reading()
        await until(lambda: end.data == b"one", "what has waited")
        await world.send(far, b" two")
        await until(lambda: end.data == b"one two", "the next edge")

    play(scenario)


async def end_of_turns(world):
    """Some turns of the loop, in which another connection was served from end to end."""
    far, end = world.connect()
    await world.send(far, b"x")
    await until(lambda: end.data, "another connection")
    end.transport.abort()
    return True


def test_a_reset_ends_a_connection_that_has_a_backlog_and_is_not_read():
    async def scenario(world):
        far, end = world.connect(send_buffer=16 * KIB)
        end.transport.pause_reading()
        end.transport.write(noise(4 << 20))
        reset(far)
        await until(lambda: end.lost, "the reset")
        assert end.told[-1] in {("lost", errno.ECONNRESET), ("lost", errno.EPIPE)}
        assert end.transport.get_write_buffer_size() == 0

    play(scenario)


@pytest.mark.parametrize("paused", [False, True])
def test_a_reset_behind_the_far_sides_end_is_told(paused):
    """Nothing is to be read any more, and nothing is written: the kernel tells it once."""

    async def scenario(world):
        far, near = world.pair()
        data = noise(90_000)
        await world.send(far, data)
        far.shutdown(socket.SHUT_WR)
        await until(lambda: arrived(near, len(data)), "all is there")
        end = End()
        world.net.adopt_end(near, end)
        if paused:  # the end and the reset are both there when it is read
            end.transport.pause_reading()
            reset(far)
            await until(lambda: near_state(end) == TCP_CLOSE, "TCP_CLOSE")
            await asyncio.sleep(0.01)  # the reset may be told meanwhile; the test is right either way
            assert not end.data and not end.lost
            end.transport.resume_reading()
        else:
            await until(lambda: "eof" in end.told, "the end")
            reset(far)
        await until(lambda: end.lost, "the reset")
        assert end.data == data and end.told == ["made", "eof", ("lost", errno.EPIPE)]

    play(scenario)


def test_who_ends_in_order_behind_the_far_sides_end_has_no_error():
    async def scenario(world):
        far, end = world.connect()
        far.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in end.told, "the end")
        end.transport.write_eof()  # both directions are over, which the kernel tells as well
        assert await world.read(far, 1) == b""
        far.close()
        await asyncio.sleep(0.01)  # for what must not come
        assert not end.lost
        end.transport.close()
        await until(lambda: end.lost, "the end of ours")
        assert end.told == ["made", "eof", ("lost", None)]

    play(scenario)


def test_a_write_to_a_connection_that_was_reset_says_so():
    async def scenario(world):
        far, end = world.connect()
        end.transport.pause_reading()
        reset(far)
        await until(lambda: near_state(end) == TCP_CLOSE, "TCP_CLOSE")
        end.transport.write(b"too late")
        assert end.told[-1] == "made"  # told in a later turn, never from within a call
        await until(lambda: end.lost, "the reset")
        assert end.told[-1] in {("lost", errno.ECONNRESET), ("lost", errno.EPIPE)}

    play(scenario)


def test_our_end_of_a_connection_that_was_reset_fails():
    async def scenario(world):
        far, end = world.connect()
        end.transport.pause_reading()
        reset(far)
        await until(lambda: near_state(end) == TCP_CLOSE, "TCP_CLOSE")
        with pytest.raises(OSError):
            end.transport.write_eof()
        end.transport.resume_reading()
        await until(lambda: end.lost, "the reset")
        assert end.told == ["made", ("lost", errno.ECONNRESET)]

    play(scenario)


def test_a_socket_with_much_to_read_takes_turns():
    class Noted(End):
        def data_received(self, data):
            super().data_received(data)
            order.append((self, len(data)))

    order = []

    async def scenario(world):
        pairs = [world.pair() for _ in range(2)]
        for _, near in pairs:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        data = noise(3 * READ_TURN)
        for far, _ in pairs:
            await world.send(far, data)
        sent = [near for _, near in pairs]
        await until(lambda: all(arrived(near, len(data)) for near in sent), "all is there")
        ends = [Noted(), Noted()]
        for (_, near), end in zip(pairs, ends, strict=True):
            world.net.adopt_end(near, end)
        await until(lambda: all(end.data == data for end in ends), "all was read")
        run, last = 0, None
        for end, count in order:
            run = run + count if end is last else count
            last = end
            if any(other.data and len(other.data) < len(data) for other in ends if other is not end):
                assert run < READ_TURN + 65536
        switches = sum(one[0] is not two[0] for one, two in zip(order, order[1:], strict=False))
        assert switches >= 4

    play(scenario)


# one among many


def test_who_is_closed_by_another_of_the_same_batch_is_told_nothing_more():
    class Closes(End):
        others = ()

        def data_received(self, data):
            super().data_received(data)
            for one in self.others:
                if one is not self:
                    one.transport.abort()

    async def scenario(world):
        fars, nears, ends = [], [], []
        for _ in range(8):
            far, near = world.pair()
            await world.send(far, b"x")
            await until(lambda near=near: arrived(near, 1), "it is there")
            fars.append(far)
            nears.append(near)
        for near in nears:  # all in one turn
            ends.append(Closes())
            world.net.adopt_end(near, ends[-1])
        Closes.others = ends
        descriptors = {under(end).fileno() for end in ends}
        await until(lambda: sum(end.lost for end in ends) == 7, "the first has ended the others")
        assert sum(len(end.data) for end in ends) == 1
        fresh = [world.connect() for _ in range(8)]  # their descriptors, or some of them, are others' now
        assert descriptors & {under(end).fileno() for _, end in fresh}
        for number, (far, _) in enumerate(fresh):
            await world.send(far, b"%d" % number)
        await until(lambda: all(end.data for _, end in fresh), "each has its own")
        assert [bytes(end.data) for _, end in fresh] == [b"%d" % number for number in range(8)]
        assert all(end.told == ["made"] for _, end in fresh)

    play(scenario)


def test_a_descriptor_that_is_another_connections_in_the_same_turn():
    """Closed and opened again and again, each time on the descriptor that has just become free."""

    async def scenario(world):
        descriptors = set()
        for number in range(200):
            far, end = world.connect()
            descriptors.add(under(end).fileno())
            await world.send(far, b"%d" % number)
            if number % 2:
                await until(lambda end=end: end.data, "its bytes")
                assert end.data == b"%d" % number
            end.transport.abort()
            far.close()
        assert len(descriptors) < 100

    play(scenario)


def test_thousands_of_sockets():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(2000, (hard - 200) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * count + 200)), hard))

    class Echo(End):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(data)

    async def scenario(world):
        pairs = [world.connect(Echo()) for _ in range(count)]
        for number, (far, _) in enumerate(pairs):
            far.send(b"%d" % number)
        for number, (far, _) in enumerate(pairs):
            said = b"%d" % number
            assert await world.read(far, len(said)) == said
        for far, _ in pairs:
            far.close()
        await until(lambda: all(end.told == ["made", "eof"] for _, end in pairs), "each has ended")
        for _, end in pairs:
            end.transport.close()
        await until(lambda: all(end.lost for _, end in pairs), "each is closed")

    try:
        play(scenario)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "where", ["connection_made", "data_received", "eof_received", "pause_writing", "connection_lost"]
)
def test_a_defect_of_one_ends_that_one_alone(where):
    def fails(self, *arguments):
        raise ZeroDivisionError

    async def scenario(world):
        far, well = world.connect()
        other, end = world.connect(type("Defect", (End,), {where: fails})(), send_buffer=16 * KIB)
        await world.send(other, b"x")
        if where == "eof_received":
            other.shutdown(socket.SHUT_WR)
        elif where == "pause_writing":
            with pytest.raises(ZeroDivisionError):  # from within the call that it answers
                end.transport.write(noise(8 << 20))
            world.defects.append(ZeroDivisionError())
            end.transport.abort()
        elif where == "connection_lost":
            reset(other)
        await until(lambda: world.defects, "the defect")
        if where != "connection_lost":
            await until(lambda: end.told and end.lost, "its end")
            with pytest.raises(ConnectionResetError):
                await world.read(other, 8 << 20)
        assert [type(exc) for exc in world.defects] == [ZeroDivisionError]
        world.defects.clear()
        await world.send(far, b"x")
        await until(lambda: well.data == b"x", "the other")

    play(scenario)


def test_a_descriptor_that_cannot_be_watched_is_closed():
    class File:
        """epoll takes no regular file."""

        def __init__(self):
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())

        def detach(self):
            return self.fd

    async def scenario(world):
        file, end = File(), End()
        world.net.adopt_end(file, end)
        assert end.told == [("failed", errno.EPERM)]
        with pytest.raises(OSError):
            os.fstat(file.fd)

    play(scenario)


# given away


def test_another_protocol_takes_over_in_the_middle():
    class First(End):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(second)
            second.connection_made(self.transport)

    second = End()

    async def scenario(world):
        far, end = world.connect(First())
        await world.send(far, b"head")
        await until(lambda: end.data, "the head")
        await world.send(far, b"body")
        far.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in second.told, "the end")
        assert (end.data, second.data, end.told) == (b"head", b"body", ["made"])
        second.transport.close()
        await until(lambda: second.lost, "closed")
        assert end.told == ["made"]

    play(scenario)


def test_the_socket_is_given_up_with_the_bytes_that_it_has_not_taken():
    async def scenario(world):
        far, end = world.connect(send_buffer=16 * KIB)
        data = noise(1 << 20)
        end.transport.pause_reading()
        end.transport.write(data[: 1 << 19])
        end.transport.write(data[1 << 19 :])
        await world.send(far, b"unread")
        waits = end.transport.get_write_buffer_size()
        sock, unsent = end.transport.detach()
        assert len(unsent) == waits > 0 and end.transport.get_write_buffer_size() == 0
        got = asyncio.ensure_future(world.read(far, len(data)))
        await world.send(sock, unsent)
        assert await got == data and await world.read(sock, 6) == b"unread"
        end.transport.close()
        end.transport.abort()
        assert end.transport.detach() is None
        assert await end_of_turns(world) and end.told == ["made", "pause"]
        sock.close()

    play(scenario)


# all of it at random


@pytest.mark.parametrize("seed", range(12))
def test_both_streams_arrive_whatever_the_order(seed):
    """Both sides write, pause and read by chance, on small kernels; each has the other's stream in the end."""
    rng = random.Random(seed)

    async def scenario(world):
        far, end = world.connect(send_buffer=rng.choice([8, 64, 512]) * KIB)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rng.choice([8, 64, 512]) * KIB)
        data = noise(1 << 20)
        sent = written = 0
        got = bytearray()

        def take():
            try:
                got.extend(far.recv(rng.randint(1, 200_000)))
            except BlockingIOError:
                pass

        while sent < len(data) or written < len(data):
            move = rng.randrange(6)
            if move == 0:
                try:
                    sent += far.send(data[sent : sent + rng.choice([1, 100, 65536, 400_000])])
                except BlockingIOError:
                    end.transport.resume_reading()
            elif move == 1 and end.transport.get_write_buffer_size() < 200_000:
                size = rng.choice([1, 100, 5000, 100_000])
                end.transport.write(data[written : written + size])
                written = min(len(data), written + size)
            elif move == 2:
                take()
            elif move == 3:
                end.transport.pause_reading()
            elif move == 4:
                end.transport.resume_reading()
            else:
                await asyncio.sleep(0)
        end.transport.resume_reading()
        end.transport.write_eof()
        far.shutdown(socket.SHUT_WR)
        got += await world.read(far, 2 << 20)
        await until(lambda: "eof" in end.told, "the end")
        assert got == data and end.data == data

    play(scenario)


# under the socket end of a flow


class Owner:
    def __init__(self):
        self.gone = 0
        self.reason = None

    def socket_ready(self, end):
        pass

    def socket_gone(self, end):
        self.gone += 1

    def flow_closed(self, flow, reason):
        self.reason = reason


def flow_end(world, *, limit=65536):
    """A socket end, its flow, which has no way, and who owns both."""
    owner = Owner()
    context = FlowContext(world.net.clock, window_initial=limit)
    context.owner = owner
    end = SocketEnd(context, owner, world.net.call_later, Reason.CLIENT_RESET, Reason.CLIENT_LOST)
    return end, Flow(context, bytes(16), bytes(16), b"open", None), owner


def test_a_flow_reads_no_more_than_its_credit_and_a_reset_leaves_no_byte_behind():
    async def scenario(world):
        far, near = world.pair()
        end, flow, owner = flow_end(world, limit=20_000)
        world.net.adopt_end(near, end)
        end.carry(flow)
        await world.send(far, noise(50_000))
        await until(lambda: flow.snd_nxt == 20_000, "as much as there is credit for")
        sock = under(end)
        await until(lambda: arrived(sock, 30_000), "the rest waits in the kernel")
        assert flow.snd_nxt == 20_000 and not flow.closed
        reset(far)  # is told although nothing is read
        await until(lambda: owner.gone, "the socket is gone")
        assert end.ctx.bytes_read == 50_000 and end.transport is None

    play(scenario)


async def with_a_full_window(world):
    """The far end, a flow's socket end that has read as much as there is credit for while the kernel holds more, its
    owner, the flow's link and the flow."""
    _, hub, peer = hub_and_peer(window=1 << 20, window_max=1 << 20)
    flow, _ = peer.open(limit=20_000)
    owner = Owner()
    end = SocketEnd(hub.context, owner, world.net.call_later, Reason.CLIENT_RESET, Reason.CLIENT_LOST)
    far, near = world.pair()
    world.net.adopt_end(near, end)
    end.carry(flow)
    await world.send(far, noise(50_000))
    await until(lambda: flow.snd_nxt == 20_000, "as much as there is credit for")
    await until(lambda: arrived(under(end), 30_000), "the rest waits in the kernel")
    return far, end, owner, peer, flow


def reset_unheard(far, end):
    """The kernel has the reset when this returns, and the loop has had no turn."""
    reset(far)
    while near_state(end) != TCP_CLOSE:
        time.sleep(0.001)


async def reset_without_memory(world):
    """All but the far end, which has reset a socket whose bytes wait in the kernel, for there is no memory."""
    far, end, owner, peer, flow = await with_a_full_window(world)
    end.ctx.budget.resize(1)
    reset_unheard(far, end)
    world.net.poll()
    return end, owner, peer, flow


def test_a_reset_that_is_told_while_a_flow_is_about_to_fill_its_window_is_not_forgotten():
    async def scenario(world):
        far, end, owner, peer, flow = await with_a_full_window(world)
        reset_unheard(far, end)
        peer.send(FrameType.M_ACK, flow, ack=20_000, limit=40_000)  # to be read on in the next turn
        world.net.poll()
        assert not owner.gone
        await until(lambda: owner.gone, "the socket is gone")
        assert end.ctx.bytes_read == 50_000

    play(scenario)


def test_a_reset_costs_no_byte_for_which_there_is_no_memory_yet():
    async def scenario(world):
        end, owner, peer, flow = await reset_without_memory(world)
        await asyncio.sleep(0)  # in which its end would be told
        assert not owner.gone and end.ctx.bytes_read == 20_000
        end.ctx.budget.resize(1 << 30)
        peer.send(FrameType.M_ACK, flow, ack=20_000, limit=1 << 20)
        await until(lambda: owner.gone, "the socket is gone")
        assert end.ctx.bytes_read == 50_000

    play(scenario)


def test_a_reset_for_which_there_was_no_memory_is_told_when_there_is_whether_or_not_there_is_credit():
    async def scenario(world):
        end, owner, peer, flow = await reset_without_memory(world)
        end.ctx.budget.resize(1 << 30)
        flow.check(end.ctx.clock(), TIMEOUTS)
        await until(lambda: owner.gone, "the socket is gone")
        assert end.ctx.bytes_read == 50_000

    play(scenario)


def test_a_reset_waits_for_memory_no_longer_than_bytes_before_it_wait_for_credit():
    """A client that has gone would hold its part of what is short for as long as it is short."""

    async def scenario(world):
        end, owner, peer, flow = await reset_without_memory(world)
        time = end.ctx.clock
        flow.check(time(), TIMEOUTS)  # there was progress
        for seconds in (1.0, 0.9):
            time.now += seconds
            flow.check(time(), TIMEOUTS)
            await asyncio.sleep(0)  # in which its end would be told
            assert not owner.gone
        time.now += 0.2
        flow.check(time(), TIMEOUTS)
        await until(lambda: owner.gone, "the socket is gone")
        assert end.ctx.bytes_read == 20_000

    play(scenario)


def test_a_flow_takes_a_connection_over_with_what_was_read_of_it():
    class Header(End):
        def data_received(self, data):
            self.transport.set_protocol(end)
            end.connection_made(self.transport)
            end.carry(flow)
            end.feed(bytes(data[4:]))

    async def scenario(world):
        nonlocal end, flow
        end, flow, owner = flow_end(world)
        far, first = world.connect(Header())
        await world.send(far, b"headfirst")
        await until(lambda: flow.snd_nxt == 5, "what came with the header")
        await world.send(far, b"second")
        await until(lambda: flow.snd_nxt == 11, "what came behind it")
        far.shutdown(socket.SHUT_WR)
        await until(lambda: flow.state == FlowState.OPENING_FIN, "the end")
        end.abort()
        with pytest.raises(ConnectionResetError):
            await world.read(far, 1)
        await until(lambda: owner.gone, "the socket is gone")
        assert first.told == ["made"]

    end = flow = None
    play(scenario)


def test_an_end_that_is_aborted_where_it_is_made():
    class Refuses(Owner):
        def socket_ready(self, end):
            end.abort()

    async def scenario(world):
        end, _, _ = flow_end(world)
        owner = Refuses()
        end = SocketEnd(end.ctx, owner, world.net.call_later, Reason.CLIENT_RESET, Reason.CLIENT_LOST)
        far, _ = world.connect(end)
        with pytest.raises(ConnectionResetError):
            await world.read(far, 1)
        await until(lambda: owner.gone, "the socket is gone")

    play(scenario)


@pytest.mark.parametrize("size", [0, 5, 150 * KIB])
def test_an_end_that_is_complete_closes_in_order_and_at_once_unless_bytes_wait(size):
    async def scenario(world):
        _, hub, peer = hub_and_peer(window=1 << 20, window_max=1 << 20)
        flow, _ = peer.open()
        owner = Owner()
        end = SocketEnd(hub.context, owner, world.net.call_later, Reason.CLIENT_RESET, Reason.CLIENT_LOST)
        far, near = world.pair(send_buffer=4 * KIB)
        world.net.adopt_end(near, end)
        end.carry(flow)
        await world.send(far, b"question")
        far.shutdown(socket.SHUT_WR)
        await until(lambda: flow.state == FlowState.HALF_LOCAL, "the end of the question")
        peer.taken()
        peer.send(FrameType.M_ACK, flow, ack=9, limit=64 * KIB)
        answer = noise(size)
        for at in range(0, size, 50 * KIB):
            peer.send(FrameType.M_DATA, flow, seq=at, ack=9, limit=64 * KIB, payload=answer[at : at + 50 * KIB])
        peer.send(FrameType.M_FIN, flow, seq=size, ack=9, limit=64 * KIB)
        if size < 4 * KIB:
            assert flow.closed and owner.gone == 1, "its descriptor is free before this turn is over"
        else:
            assert not owner.gone
        assert await world.read(far, size + 1) == answer
        await until(lambda: flow.closed and owner.gone == 1, "the socket is gone")
        assert end.transport is None and hub.reasons[flow.cid] == [Reason.CLOSED]

    play(scenario)
