"""Messages and descriptors over a socket pair, as one process hands them to the next."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import resource
import socket
import struct

import pytest
import uvloop
from support.descriptors import descriptors
from support.until import SCENARIO_SEC, until

from ncfast.net import channel as channel_module
from ncfast.net.channel import MAX_FDS, MAX_PAYLOAD, Channel
from ncfast.net.seam import Net


def run(main):
    async def limited():
        async with asyncio.timeout(SCENARIO_SEC):
            await main(Net(asyncio.get_running_loop()))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


class End:
    """A channel, and what it was told."""

    def __init__(self, net, sock):
        self.got, self.reasons = [], []
        self.channel = Channel(net, sock, self.got.append, self.reasons.append)

    def fds(self):
        return [fd for message in self.got for fd in message.fds]


def ends(net):
    ours, theirs = net.pair()
    return End(net, ours), End(net, theirs)


def pipes(count):
    """Read ends whose bytes say which they are."""
    readers = []
    for number in range(count):
        reader, writer = os.pipe()
        os.write(writer, struct.pack("<I", number))
        os.close(writer)
        readers.append(reader)
    return readers


def numbers(fds):
    """What `pipes` wrote; the descriptors are closed."""
    read = []
    for fd in fds:
        read.append(struct.unpack("<I", os.read(fd, 8))[0])
        os.close(fd)
    return read


def held():
    return len(descriptors())


def test_messages_come_whole_and_in_order_with_their_descriptors():
    async def main(net):
        here, there = ends(net)
        readers = pipes(3)
        here.channel.send("first", {"number": 1}, b"abc", readers[:2])
        here.channel.send("second", {})
        here.channel.send("third", {"list": [1, "two"]}, [b"d", b"ef"], readers[2:])
        for fd in readers:
            os.close(fd)
        await until(lambda: len(there.got) == 3)
        assert [(m.kind, m.body, m.payload, len(m.fds)) for m in there.got] == [
            ("first", {"number": 1}, b"abc", 2),
            ("second", {}, b"", 0),
            ("third", {"list": [1, "two"]}, b"def", 1),
        ]
        assert all(os.get_inheritable(fd) is False for fd in there.fds()), "a program that is started would have them"
        assert numbers(there.fds()) == [0, 1, 2]
        there.channel.send("back", {})
        await until(lambda: here.got)
        here.channel.close()
        await until(lambda: there.reasons)
        assert there.reasons == ["the far end has closed"] and here.reasons == [] and there.channel.closed

    run(main)


def test_what_a_hub_of_ten_thousand_agents_says_of_itself_has_room():
    async def main(net):
        here, there = ends(net)
        agents = [[f"site-{number}", *(f"connector-{one}" for one in range(64))] for number in range(10_000)]
        here.channel.send("heritage", {"agents": agents})
        await until(lambda: there.got)
        assert there.got[0].body == {"agents": agents}
        here.channel.close()

    run(main)


def test_what_the_kernel_does_not_take_waits_and_so_do_copies_of_its_descriptors():
    async def main(net):
        before = held()
        here, there = ends(net)
        reading = there.channel._read
        net.loop.remove_reader(there.channel._sock)
        count, big = 40, os.urandom(1024 * 1024)
        for number in range(count):
            mine = pipes(MAX_FDS)
            here.channel.send("part", {"number": number}, big, mine)
            for fd in mine:
                os.close(fd)
        assert here.channel.backlog > (count - 2) * len(big)
        waiting = asyncio.ensure_future(here.channel.drained())
        await asyncio.sleep(0)
        assert not waiting.done() and held() > before + (count - 2) * MAX_FDS
        net.loop.add_reader(there.channel._sock, reading)
        await waiting
        await until(lambda: len(there.got) == count)
        assert [m.body["number"] for m in there.got] == list(range(count))
        assert all(m.payload == big for m in there.got) and here.channel.backlog == 0
        assert numbers(there.fds()) == list(range(MAX_FDS)) * count
        here.channel.close()
        there.channel.close()
        assert held() == before

    run(main)


def test_what_was_said_before_the_far_end_died_is_delivered():
    async def main(net):
        before = held()
        here, there = ends(net)
        there.channel.send("unread", {}, bytes(1000))  # so that its closing is a reset to the other end
        mine = pipes(2)
        for number in range(20):
            here.channel.send("last words", {"number": number}, b"x" * 1000, mine)
        here.channel.close()
        for _ in range(3):
            there.channel.send("into the void", {}, bytes(100_000), mine)
        assert there.reasons == [] and there.channel.backlog == 0
        await until(lambda: there.reasons)
        assert [m.body["number"] for m in there.got] == list(range(20)) and len(there.reasons) == 1
        for message in there.got:
            message.close()
        for fd in mine:
            os.close(fd)
        assert held() == before
        there.channel.send("nobody", {})  # and nothing happens
        await there.channel.drained()

    run(main)


def test_a_message_that_is_cut_short_is_none():
    async def main(net):
        sock, raw = net.pair()
        end = End(net, sock)
        raw.sendall(struct.pack("<III", 10, 1000, 0) + b'["kind",{}]')
        raw.close()
        await until(lambda: end.reasons)
        assert end.got == [] and end.reasons == ["a message was cut short"]

    run(main)


GOOD = b'["kind",{}]'
NONSENSE = {
    "no JSON": struct.pack("<III", 4, 0, 0) + b"{{{{",
    "another shape": struct.pack("<III", 7, 0, 0) + b'["kind"',
    "a list of three": struct.pack("<III", 7, 0, 0) + b"[1,2,3]",
    "no kind": struct.pack("<III", 6, 0, 0) + b"[1,{}]",
    "no body": struct.pack("<III", 7, 0, 0) + b'["k",1]',
    "a number": struct.pack("<III", 1, 0, 0) + b"1",
    "too much JSON": struct.pack("<III", 2**31, 0, 0),
    "too much payload": struct.pack("<III", 2, MAX_PAYLOAD + 1, 0),
    "too many descriptors": struct.pack("<III", 2, 0, MAX_FDS + 1),
    "descriptors that are not there": struct.pack("<III", len(GOOD), 0, 1) + GOOD,
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_closes_the_channel(what):
    async def main(net):
        sock, raw = net.pair()
        end = End(net, sock)
        with raw:
            raw.sendall(struct.pack("<III", len(GOOD), 0, 0) + GOOD + NONSENSE[what])
            await until(lambda: end.reasons)
        assert [m.kind for m in end.got] == ["kind"], "what was good before it"
        assert len(end.reasons) == 1 and end.reasons[0].startswith("no message: ") and end.channel.closed

    run(main)


@pytest.mark.parametrize("count, reason", [(3, "no message"), (200, "descriptors ran out")])
def test_descriptors_that_no_message_names_are_closed(count, reason):
    async def main(net):
        before = held()
        sock, raw = net.pair()
        end = End(net, sock)
        mine = [raw.fileno()] * count
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", mine))]
        raw.sendmsg([struct.pack("<III", len(GOOD), 0, 0) + GOOD], control)
        await until(lambda: end.reasons)
        assert end.reasons[0].startswith(reason)
        raw.close()
        assert held() == before

    run(main)


def test_a_receiver_without_descriptors_closes_instead_of_losing_some():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main(net):
        here, there = ends(net)
        mine = pipes(30)
        before = held()
        here.channel.send("sockets", {}, b"", mine)
        free = sorted(set(range(soft)) - set(map(int, descriptors())))
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[10], hard))
        try:
            await until(lambda: there.reasons)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert there.reasons == ["descriptors ran out"] and there.got == []
        await until(lambda: here.reasons)
        assert held() == before - 2  # the ends themselves
        with pytest.raises(ValueError, match="descriptors"):
            here.channel.send("too many", {}, b"", mine * 3)
        here.channel.close()
        for fd in mine:
            os.close(fd)

    run(main)


def test_a_sender_that_can_keep_no_copies_sends_nothing(monkeypatch):
    def exhausted(fd):
        raise OSError(errno.EMFILE, "too many")

    async def main(net):
        here, there = ends(net)
        net.loop.remove_reader(there.channel._sock)
        here.channel.send("fills", {}, bytes(1024 * 1024))
        waiting = here.channel.backlog
        monkeypatch.setattr(channel_module.os, "dup", exhausted)
        with pytest.raises(OSError):
            here.channel.send("with a socket", {}, b"", [0])
        assert here.channel.backlog == waiting
        here.channel.close()
        there.channel.close()

    run(main)


def test_of_descriptors_that_are_kept_no_copies_are_made(monkeypatch):
    def exhausted(fd):
        raise OSError(errno.EMFILE, "too many")

    async def main(net):
        before = held()
        here, there = ends(net)
        reading = there.channel._read
        net.loop.remove_reader(there.channel._sock)
        here.channel.send("fills", {}, bytes(1024 * 1024))
        mine = pipes(MAX_FDS)
        monkeypatch.setattr(channel_module.os, "dup", exhausted)
        here.channel.send("clients", {}, b"", mine, kept=True)
        net.loop.add_reader(there.channel._sock, reading)
        await until(lambda: len(there.got) == 2)
        assert numbers(there.fds()) == list(range(MAX_FDS))
        for fd in mine:
            os.close(fd)
        mine = pipes(1)
        net.loop.remove_reader(there.channel._sock)
        here.channel.send("fills", {}, bytes(1024 * 1024))
        here.channel.send("clients", {}, b"", mine, kept=True)
        here.channel.close()
        there.channel.close()
        assert numbers(mine) == [0], "those that were not sent are still the caller's"
        assert held() == before

    run(main)


def test_more_descriptors_on_their_way_than_the_kernel_allows_are_waited_for():
    async def main(net):
        here, there = ends(net)
        real, refused = here.channel._sock, []

        class Refusing:
            def sendmsg(self, *arguments):
                if len(refused) < 3:
                    refused.append(True)
                    raise OSError(errno.ETOOMANYREFS, "too many references")
                return real.sendmsg(*arguments)

            def __getattr__(self, name):
                return getattr(real, name)

        here.channel._sock = Refusing()
        mine = pipes(2)
        here.channel.send("sockets", {}, b"", mine)
        await until(lambda: there.got)
        assert numbers(there.fds()) == [0, 1] and len(refused) == 3
        here.channel._sock = real
        here.channel.close()
        there.channel.close()
        for fd in mine:
            os.close(fd)

    run(main)


def test_whoever_fails_over_a_message_has_closed_the_channel():
    async def main(net):
        here, there = ends(net)

        def fail(message):
            raise KeyError(message.kind)

        there.channel.on_message = fail
        here.channel.send("one", {})
        here.channel.send("two", {})
        await until(lambda: there.reasons and here.reasons)
        assert there.reasons == ["message one could not be worked with"]

    run(main)


def test_a_receiver_that_closes_gets_nothing_more():
    async def main(net):
        here, there = ends(net)
        got = []

        def first(message):
            got.append(message.kind)
            there.channel.close()

        there.channel.on_message = first
        here.channel.send("one", {})
        here.channel.send("two", {})
        await until(lambda: here.reasons)
        assert got == ["one"] and there.reasons == []

    run(main)
