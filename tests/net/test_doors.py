"""Listening sockets that pass from one process to the next: two seams on one loop stand for the two processes."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import suppress

import pytest
import uvloop
from support.until import PATIENCE, SCENARIO_SEC, until

from ncfast.config.values import Address
from ncfast.net import binding
from ncfast.net.channel import Channel
from ncfast.net.seam import Net

HERE = Address("127.0.0.1", 0)


def run(main):
    """`main(old, new)` on the product's loop."""

    async def limited():
        async with asyncio.timeout(SCENARIO_SEC):
            loop = asyncio.get_running_loop()
            await main(Net(loop), Net(loop))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


def passed(doors):
    """As they come out of a channel: other descriptors of the same sockets."""
    return [(key, [socket.socket(fileno=os.dup(sock.fileno())) for sock in socks]) for key, socks in doors]


class Taker:
    """Answers each connection with who it is."""

    def __init__(self, name):
        self.name, self.count = name, 0

    def __call__(self, sock, peer):
        self.count += 1
        sock.send(self.name)
        sock.close()


class Clients(threading.Thread):
    """Connects again and again until told to stop, and keeps what it was told, and what went wrong."""

    def __init__(self, family, where):
        super().__init__()
        self.family, self.where = family, where
        self.answers, self.failures = [], []
        self.enough = threading.Event()
        self.start()

    def run(self):
        while not self.enough.is_set():
            try:
                self.answers.append(ask(self.family, self.where))
            except OSError as exc:
                self.failures.append(exc)


def ask(family, where):
    with socket.socket(family) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(where)
        return sock.recv(16)


def place(address):
    host, _, port = address.rpartition(":")
    return host, int(port)


async def opens(net, kind, path, taker):
    """The acceptor, and where clients connect."""
    if kind == "unix":
        return await net.listen_unix(str(path), taker), (socket.AF_UNIX, str(path))
    acceptor = await net.listen(HERE, taker)
    return acceptor, (socket.AF_INET, place(acceptor.address))


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_no_connect_is_refused_or_lost_while_two_processes_hold_and_go_on(kind, tmp_path):
    async def main(old, new):
        path = tmp_path / "door"
        first, second = Taker(b"old"), Taker(b"new")
        giving, where = await opens(old, kind, path, first)
        clients = [Clients(*where) for _ in range(3)]
        try:
            await until(lambda: first.count > 20)
            old.share("successor", True)
            new.share("predecessor", True)
            new.inherit(passed(old.doors()))
            taking, _ = await opens(new, kind, path, second)
            assert taking.address == giving.address
            for _ in range(5):
                giving.hold()
                giving.hold()  # twice does no harm
                before = second.count
                await until(lambda since=before: second.count > since + 5)
                taking.hold()
                giving.go_on()
                giving.go_on()
                before = first.count
                await until(lambda since=before: first.count > since + 5)
                taking.go_on()
            giving.hold()
            giving.close()
            new.share("predecessor", False)
            before = second.count
            await until(lambda: second.count > before + 20)
        finally:
            for one in clients:
                one.enough.set()
        await until(lambda: not any(one.is_alive() for one in clients))
        assert [one.failures for one in clients] == [[], [], []]
        answers = [answer for one in clients for answer in one.answers]
        assert set(answers) == {b"old", b"new"} and len(answers) == first.count + second.count
        assert kind == "tcp" or path.exists()
        taking.close()
        assert not path.exists()
        with pytest.raises(OSError):
            ask(*where)

    run(main)


def test_who_waits_in_the_queue_is_served_by_the_next():
    async def main(old, new):
        giving = await old.listen(HERE, Taker(b"old"))
        giving.hold()
        waiting = [socket.create_connection(place(giving.address)) for _ in range(20)]
        new.inherit(passed(old.doors()))
        giving.close()
        second = Taker(b"new")
        taking = await new.listen(HERE, second)
        await until(lambda: second.count == 20)
        for sock in waiting:
            assert sock.recv(16) == b"new"
            sock.close()
        taking.close()

    run(main)


def test_port_0_is_what_the_same_key_had():
    async def main(old, new):
        edge = await old.listen(HERE, Taker(b"edge"), use="edge")
        ldap = await old.listen(HERE, Taker(b"ldap"), use="listeners.ldap")
        new.inherit(passed(old.doors()))
        other = await new.listen(HERE, Taker(b"other"), use="listeners.other")
        assert other.address not in (edge.address, ldap.address), "nobody asked for this one before"
        assert (await new.listen(HERE, Taker(b""), use="listeners.ldap")).address == ldap.address
        assert (await new.listen(HERE, Taker(b""), use="edge")).address == edge.address

    run(main)


def test_a_port_that_another_key_asks_for_now_is_inherited():
    async def main(old, new):
        probe = await old.listen(HERE, Taker(b"old"))
        where = Address("127.0.0.1", place(probe.address)[1])
        probe.close()
        giving = await old.listen(where, Taker(b"old"), use="listeners.ldap")
        new.inherit(passed(old.doors()))
        taking = await new.listen(where, Taker(b"new"), use="listeners.directory")
        assert taking.address == giving.address

    run(main)


def test_all_families_are_inherited_with_the_options_that_are_wanted_now():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")

    async def main(old, new):
        everywhere = Address("", 0)
        giving = await old.listen(everywhere, Taker(b"old"))
        new.inherit(passed(old.doors()))
        second = Taker(b"new")
        tuned = []
        taking = await new.listen(everywhere, second, tune=lambda sock: tuned.append(sock.family))
        assert sorted(tuned) == sorted((socket.AF_INET, socket.AF_INET6)) and taking.address == giving.address
        giving.close()
        port = place(taking.address)[1]
        calls = [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
        answers = await asyncio.gather(*(asyncio.to_thread(ask, *one) for one in calls))
        assert answers == [b"new", b"new"]

    run(main)


def test_a_door_that_nobody_asks_for_is_closed():
    async def main(old, new):
        giving = await old.listen(HERE, Taker(b"old"), use="listeners.gone")
        new.inherit(passed(old.doors()))
        giving.hold()
        giving.close()
        left = socket.create_connection(place(giving.address))  # there is still a queue
        new.close_unclaimed()
        left.settimeout(PATIENCE)
        with pytest.raises(ConnectionResetError):
            left.recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place(giving.address))

    run(main)


def test_a_path_stays_while_another_process_listens_there(tmp_path):
    async def main(old, new):
        path = tmp_path / "door"
        first = Taker(b"old")
        giving = await old.listen_unix(str(path), first)
        new.share("predecessor", True)
        new.inherit(passed(old.doors()))
        (await new.listen_unix(str(path), Taker(b"new"))).close()  # it has failed before it served
        assert path.exists()
        assert await asyncio.to_thread(ask, socket.AF_UNIX, str(path)) == b"old"
        giving.close()
        assert not path.exists()

    run(main)


def test_a_predecessor_that_parts_late_does_not_end_what_is_shared_with_a_successor(tmp_path):
    async def main(old, new):
        path = tmp_path / "door"
        giving = await old.listen_unix(str(path), Taker(b"old"))
        new.share("predecessor", True)
        new.inherit(passed(old.doors()))
        taking = await new.listen_unix(str(path), Taker(b"new"))
        new.share("successor", True)
        new.share("predecessor", False)
        taking.close()
        assert path.exists()
        giving.close()

    run(main)


def test_closed_acceptors_are_no_doors(monkeypatch):
    async def main(old, new):
        (await old.listen(HERE, Taker(b"old"))).close()
        acceptor = await old.listen(HERE, Taker(b"old"), use="edge")
        acceptor.hold()
        assert [(key, [sock.fileno() for sock in socks]) for key, socks in old.doors()] == [
            ("edge tcp:127.0.0.1:0", [sock.fileno() for sock in acceptor.sockets])
        ]
        acceptor.close()
        acceptor.go_on()
        assert old.doors() == []

    run(main)


def test_listening_sockets_go_over_a_channel():
    async def main(old, new):
        first, second = Taker(b"old"), Taker(b"new")
        giving = await old.listen(HERE, first, use="edge")
        ours, theirs = old.pair()
        got = []
        sender = Channel(old, ours, got.append, got.append)
        receiver = Channel(new, theirs, got.append, got.append)
        for key, socks in old.doors():
            sender.send("door", {"key": key}, b"", [sock.fileno() for sock in socks])
        await until(lambda: got)
        new.inherit([(got[0].body["key"], [socket.socket(fileno=fd) for fd in got[0].fds])])
        taking = await new.listen(HERE, second, use="edge")
        giving.close()
        assert await asyncio.to_thread(ask, socket.AF_INET, place(taking.address)) == b"new"
        sender.close()
        receiver.close()

    run(main)


def test_what_is_bound_afresh_is_no_heirloom(monkeypatch):
    """A key that was not there before is bound, and a second of the same key does not get the first one's."""

    async def main(old, new):
        giving = await old.listen(HERE, Taker(b"old"), use="edge")
        new.inherit(passed(old.doors()))
        bound = []
        real = binding._bound
        monkeypatch.setattr(binding, "_bound", lambda *arguments: bound.append(arguments) or real(*arguments))
        one = await new.listen(HERE, Taker(b"new"), use="edge")
        assert bound == [] and one.address == giving.address
        two = await new.listen(HERE, Taker(b"new"), use="edge")
        assert len(bound) == 1 and two.address != one.address
        with suppress(OSError):
            one.close()

    run(main)
