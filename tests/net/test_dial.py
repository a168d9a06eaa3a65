"""Dials by callback: at once if nobody need be waited for, ended when nobody wants them, and nothing left of them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading

import pytest
import uvloop
from support.descriptors import descriptors
from support.silent import silent_address
from support.until import PATIENCE, SCENARIO_SEC, until

from ncfast.net import connect as connecting
from ncfast.net import dial as dialling
from ncfast.net.seam import Net
from ncfast.net.syscalls import reached_here

HERE = "127.0.0.1"
NEVER = 1e6  # seconds
SHORT = 0.01  # seconds, of which nobody makes sure


def run(main):
    """`main(net)` on the product's loop, and no descriptor or task left by it."""

    async def limited():
        async with asyncio.timeout(SCENARIO_SEC):
            net = Net(asyncio.get_running_loop())
            before = descriptors()
            await main(net)
            await until(lambda: len(asyncio.all_tasks()) == 1, "no task left")
            assert descriptors() == before

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


@pytest.fixture
def elsewhere(monkeypatch):
    """What is dialled is not on this machine."""
    monkeypatch.setattr(connecting, "_is_here", lambda place: False)


@pytest.fixture
def live():
    with socket.create_server((HERE, 0)) as sock:
        yield sock.getsockname()[1]


@pytest.fixture
def refusing():
    with socket.socket() as sock:
        sock.bind((HERE, 0))
        yield sock.getsockname()[1]


@pytest.fixture
def silent():
    with silent_address() as (_, port):
        yield port


class Resolver:
    """In place of `getaddrinfo`: every name is here, when `go` is set, or is not found."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.known = True
        self.asked = 0

    def __call__(self, host, port, *, type):
        self.asked += 1
        assert self.go.wait(PATIENCE)
        if not self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, type, 6, "", (HERE, port))]


@pytest.fixture
def resolver(monkeypatch):
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.go.set()


def nothing(*args):
    pytest.fail("neither poll nor timer nor task")


def quiet(net, monkeypatch):
    """Whatever would have the loop do something for a dial fails."""
    monkeypatch.setattr(net, "spawn", nothing)

    class Loop:
        add_writer = call_later = call_soon = create_task = nothing

    net.loop = Loop()


def test_to_this_machine_it_stands_at_once(live, monkeypatch):
    async def main(net):
        quiet(net, monkeypatch)
        ended = []
        net.start_dial(HERE, live, ended.append, timeout=NEVER).cancel()  # too late
        (sock,) = ended
        assert sock.getpeername() == (HERE, live) and not sock.getblocking()
        sock.close()

    run(main)


def test_and_fails_at_once(refusing, monkeypatch):
    async def main(net):
        quiet(net, monkeypatch)
        ended = []
        net.start_dial(HERE, refusing, ended.append, timeout=NEVER)
        assert [type(one) for one in ended] == [ConnectionRefusedError]

    run(main)


def test_of_a_bare_one_what_is_here_takes_no_dial_unless_it_is_silent(live, refusing, silent, monkeypatch):
    async def main(net):
        ended = []
        net.start_dial(HERE, silent, ended.append, timeout=NEVER, bare=True).cancel()
        assert not ended
        quiet(net, monkeypatch)
        for port in (live, refusing):
            assert net.start_dial(HERE, port, ended.append, timeout=NEVER, bare=True) is None
        reached, refused = ended
        assert not os.get_blocking(reached.fileno())
        with socket.socket(fileno=reached.detach()) as sock:
            assert sock.getpeername() == (HERE, live)
        assert type(refused) is ConnectionRefusedError

    run(main)


@pytest.mark.parametrize("host", ["127.example", "127.0.0.1.example", "192.0.2.1", "localhost", ""])
def test_what_is_no_address_of_the_loopback_takes_a_dial(host):
    assert reached_here(host, 389) is None


def test_elsewhere_it_is_polled_for(live, refusing, elsewhere):
    async def main(net):
        ended = []
        net.start_dial(HERE, live, ended.append, timeout=NEVER)
        net.start_dial(HERE, refusing, ended.append, timeout=NEVER)
        assert not ended
        await until(lambda: len(ended) == 2, "both ended")
        (sock,) = (one for one in ended if isinstance(one, socket.socket))
        assert sock.getpeername() == (HERE, live) and any(isinstance(one, ConnectionRefusedError) for one in ended)
        sock.close()

    run(main)


def test_a_silent_one_ends_in_time(silent):
    async def main(net):
        ended = []
        net.start_dial(HERE, silent, ended.append, timeout=SHORT)
        await until(lambda: ended, "given up")
        assert [type(one) for one in ended] == [TimeoutError]

    run(main)


def test_given_up_nothing_is_left_of_it(silent):
    async def main(net):
        before = descriptors()
        dial = net.start_dial(HERE, silent, nothing, timeout=NEVER)
        assert descriptors() != before
        dial.cancel()
        dial.cancel()
        assert descriptors() == before

    run(main)


@pytest.mark.parametrize("what", ["add_writer", "call_later"])
def test_nothing_is_left_of_one_that_fails_as_it_begins(silent, monkeypatch, what):
    """Whoever asked for it has heard of that, and is not to be called as well."""

    async def main(net):
        before, loop = descriptors(), net.loop

        class Short:
            def __getattr__(self, name):
                return getattr(loop, name) if name != what else self.fails

            def fails(self, *arguments):
                raise MemoryError

        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(net, "loop", Short())
            net.start_dial(HERE, silent, nothing, timeout=NEVER)
        assert descriptors() == before

    run(main)


def test_a_name_is_looked_up_and_then_known(resolver, live, monkeypatch):
    async def main(net):
        ended = []
        net.start_dial("db", live, ended.append, timeout=NEVER)
        await until(lambda: resolver.asked, "asked")
        assert not ended
        resolver.go.set()
        await until(lambda: ended, "connected")
        quiet(net, monkeypatch)
        net.start_dial("db", live, ended.append, timeout=NEVER)
        assert [sock.getpeername() for sock in ended] == [(HERE, live)] * 2 and resolver.asked == 1
        for sock in ended:
            sock.close()

    run(main)


def test_a_name_that_is_not_found(resolver, live):
    async def main(net):
        resolver.known = False
        resolver.go.set()
        ended = []
        net.start_dial("db", live, ended.append, timeout=NEVER)
        await until(lambda: ended, "ended")
        assert [type(one) for one in ended] == [socket.gaierror]

    run(main)


@pytest.mark.parametrize("how", ["given up", "too late"])
def test_a_look_up_that_hangs(resolver, live, monkeypatch, how):
    async def main(net):
        ended, tried = [], []
        monkeypatch.setattr(dialling, "Attempts", lambda *args: tried.append(args))
        dial = net.start_dial("db", live, ended.append, timeout=NEVER if how == "given up" else SHORT)
        await until(lambda: resolver.asked, "asked")
        if how == "given up":
            dial.cancel()
        else:
            await until(lambda: ended, "too late")
        resolver.go.set()
        await until(lambda: net.names.counts["target"]["answered"], "answered after all")
        await until(lambda: len(asyncio.all_tasks()) == 1, "heard by all who wait")
        assert not tried
        assert [type(one) for one in ended] == ([] if how == "given up" else [TimeoutError])

    run(main)


def test_an_address_that_is_not_admitted_is_not_tried(live):
    async def main(net):
        ended = []
        net.start_dial(HERE, live, ended.append, timeout=NEVER, admit=lambda host: host != HERE)
        assert [one.errno for one in ended] == [errno.EACCES]

    run(main)


@pytest.mark.parametrize("first", ["the connection", "the end"])
def test_who_waits_is_cancelled_in_the_turn_in_which_it_connects(monkeypatch, live, elsewhere, first):
    ready = connecting.Attempts._ready

    async def main(net):
        seen = []

        def both(attempts, sock):
            if first == "the connection":
                ready(attempts, sock)
            task.cancel()
            if first == "the end":
                ready(attempts, sock)
            seen.append(sock)

        monkeypatch.setattr(connecting.Attempts, "_ready", both)
        task = net.loop.create_task(net.dial(HERE, live, "target", NEVER))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [sock.fileno() for sock in seen] == [-1]

    run(main)
