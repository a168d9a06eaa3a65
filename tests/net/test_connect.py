"""Several addresses of one name: the first that answers is taken, and nothing of the others is left open."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest
import uvloop
from support.descriptors import descriptors
from support.silent import silent_address
from support.until import SCENARIO_SEC, until

from ncfast.net import connect as module
from ncfast.net.connect import Attempts, Place
from ncfast.net.syscalls import Dialled

HERE = "127.0.0.1"
IS_HERE = module._is_here
NO_FAMILY = 4096  # an address family that no kernel has
NEVER = 1e6  # seconds
SHORT = 0.01  # seconds, of which nobody makes sure


def run(main):
    """`main(loop)` on the product's loop, and no descriptor left open by it."""

    async def limited():
        async with asyncio.timeout(SCENARIO_SEC):
            loop = asyncio.get_running_loop()
            before = descriptors()
            await main(loop)
            assert descriptors() == before

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


@pytest.fixture(autouse=True, params=["here", "elsewhere"])
def where(request, monkeypatch):
    """What is on this machine answers before a poll; everything else is polled for."""
    if request.param == "elsewhere":
        monkeypatch.setattr(module, "_is_here", lambda place: False)


async def connect(loop, places, timeout) -> tuple[socket.socket, Place]:
    ended = loop.create_future()
    attempts = Attempts(loop, places, timeout, ended.set_result)
    attempts.start()
    try:
        outcome = await ended
    finally:
        attempts.close()
    if isinstance(outcome, OSError):
        raise outcome
    return outcome


def place(sock: socket.socket) -> Place:
    return sock.family, sock.getsockname()


@pytest.fixture
def live() -> Iterator[Place]:
    with socket.create_server((HERE, 0)) as sock:
        yield place(sock)


@pytest.fixture
def refusing() -> Iterator[Place]:
    with socket.socket() as sock:
        sock.bind((HERE, 0))
        yield place(sock)


@pytest.fixture
def silent() -> Iterator[Place]:
    with silent_address() as address:
        yield socket.AF_INET, address


def connected_to(loop, *places: Place):
    async def main() -> Place:
        sock, won = await connect(loop, places, NEVER)
        with sock:
            assert sock.getpeername() == won[1] and not sock.getblocking()
        return won

    return main()


def test_a_bare_outcome_is_a_descriptor(live):
    async def main(loop):
        ended = loop.create_future()
        Attempts(loop, [live], NEVER, ended.set_result, True).start()
        sock, won = await ended
        assert isinstance(sock, Dialled) and won == live and not os.get_blocking(sock.fileno())
        with socket.socket(fileno=sock.detach()) as made:
            assert made.getpeername() == live[1] and not made.get_inheritable()

    run(main)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_an_ipv6_address_is_dialled():
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on loopback")

    async def main(loop):
        assert await connected_to(loop, place(listening)) == place(listening)

    with listening:
        run(main)


def test_what_is_no_address_of_its_family_fails(live):
    async def main(loop):
        for address in (("::1", 1, 0, 0), ("localhost", 1)):
            with pytest.raises(OSError, match="family"):
                await connect(loop, [(socket.AF_INET, address)], NEVER)
        assert await connected_to(loop, (socket.AF_INET, ("::1", 1, 0, 0)), live) == live

    run(main)


def test_the_second_serves_when_the_first_is_silent(live, silent):
    async def main(loop):
        assert await connected_to(loop, silent, live) == live

    run(main)


def test_the_next_is_tried_at_once_when_one_fails(monkeypatch, live, refusing):
    monkeypatch.setattr(module, "ATTEMPT_DELAY", NEVER)

    async def main(loop):
        assert await connected_to(loop, refusing, (NO_FAMILY, ()), refusing, live) == live

    run(main)


def test_the_first_is_preferred_while_it_answers(monkeypatch, live, refusing):
    monkeypatch.setattr(module, "ATTEMPT_DELAY", NEVER)

    async def main(loop):
        with socket.create_server((HERE, 0)) as other:
            assert await connected_to(loop, live, place(other)) == live
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.accept()

    run(main)


def test_a_first_that_is_only_slow_may_win_after_all(monkeypatch, live, silent):
    """It is not given up when the next is tried."""
    monkeypatch.setattr(module, "ATTEMPT_DELAY", 0.0)

    async def main(loop):
        assert await connected_to(loop, silent, silent, live, silent) == live

    run(main)


def test_a_short_time_has_the_next_tried_in_it(monkeypatch, live, silent):
    monkeypatch.setattr(module, "ATTEMPT_DELAY", NEVER)

    async def main(loop):
        sock, won = await connect(loop, [silent, live], SHORT)
        sock.close()
        assert won == live

    run(main)


@pytest.mark.parametrize("others", [1, 2])
def test_all_refuse(refusing, others):
    async def main(loop):
        with pytest.raises(ConnectionRefusedError):
            await connect(loop, [refusing] * (1 + others), NEVER)

    run(main)


@pytest.mark.parametrize("first", [True, False])
def test_a_family_that_is_missing_here_says_less_than_a_refusal(refusing, first):
    async def main(loop):
        lacking = (NO_FAMILY, ())
        with pytest.raises(ConnectionRefusedError):
            await connect(loop, [lacking, refusing] if first else [refusing, lacking], NEVER)

    run(main)


def test_given_up_while_several_are_under_way(monkeypatch, silent):
    monkeypatch.setattr(module, "ATTEMPT_DELAY", 0.0)

    async def main(loop):
        task = loop.create_task(connect(loop, [silent] * 3, NEVER))
        for _ in range(8):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_both_connect_in_one_turn(monkeypatch, live):
    monkeypatch.setattr(module, "_is_here", lambda place: False)

    async def main(loop):
        won = []
        attempts = Attempts(loop, [live, live], NEVER, won.append)
        attempts.start()
        attempts.start()  # as the timer would
        await until(lambda: won, "connected")
        ((sock, _),) = won
        sock.close()

    run(main)


@pytest.mark.parametrize("host", [HERE, "127.8.9.10", "::1"])
def test_what_is_here(host):
    assert IS_HERE((socket.AF_INET, (host, 80)))
    assert not IS_HERE((socket.AF_INET, ("192.0.2.127", 80)))
