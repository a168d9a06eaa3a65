"""Names that hang, fail, change and come back: a resolver that does as it is told, in the threads of the product."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
import uvloop
from support.until import PATIENCE, SCENARIO_SEC, until

from ncfast.net import names as module
from ncfast.net.names import AT_ONCE, FRESH_SEC, KEPT_SEC, PREFER_SEC, Names, interleaved, literal
from ncfast.net.seam import Net
from ncfast.observe import log

LATER = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
NONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
NEVER = 1e6  # seconds
SIX, FOUR = socket.AF_INET6, socket.AF_INET


def four(*hosts: str):
    return [(FOUR, (host, 80)) for host in hosts]


class Resolver:
    """In place of `getaddrinfo`: each name's answers, a list of addresses or an exception; the last stays. A name that
    hangs does so until it is let go."""

    def __init__(self) -> None:
        self.answers: dict[str, list | Exception] = {}
        self.hanging: dict[str, threading.Event] = {}
        self.asked: Counter[str] = Counter()

    def hang(self, *names: str) -> None:
        for name in names:
            self.hanging[name] = threading.Event()

    def let_go(self, name: str) -> None:
        self.hanging.pop(name).set()

    def __call__(self, host, port, *, type):
        assert threading.current_thread().daemon and type == socket.SOCK_STREAM
        hangs = self.hanging.get(host)  # before anybody can see that it was asked, and let it go
        self.asked[host] += 1
        assert hangs is None or hangs.wait(PATIENCE)
        answer = self.answers.get(host, NONE)
        if isinstance(answer, Exception):
            raise answer
        return [
            (SIX, type, 6, "", (address, port, 0, 0)) if ":" in address else (FOUR, type, 6, "", (address, port))
            for address in answer
        ]


@pytest.fixture
def resolver(monkeypatch):
    made = Resolver()
    real = socket.getaddrinfo

    def asked(host, port, **options):
        return real(host, port, **options) if "flags" in options or "family" in options else made(host, port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    yield made
    for name in list(made.hanging):
        made.let_go(name)


@pytest.fixture
def lines():
    stream = io.StringIO()
    log.setup("info", "json", stream=stream)

    def told():
        log.flush()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield told
    log.setup()


def run(main):
    """`main(names, clock)` on the product's loop; `clock.now` is what the ages are measured by."""

    async def limited():
        async with asyncio.timeout(SCENARIO_SEC):
            clock = SimpleNamespace(now=1000.0)
            await main(Names(asyncio.get_running_loop(), lambda: clock.now), clock)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


def ask(names, host, share="target", port=80):
    return asyncio.get_running_loop().create_task(names.find(share, host, port, NEVER))


# literals


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("192.0.2.1", [(FOUR, ("192.0.2.1", 80))]),
        ("2001:db8::1", [(SIX, ("2001:db8::1", 80, 0, 0))]),
        ("fe80::1%1", [(SIX, ("fe80::1", 80, 0, 1))]),
        ("db.example.net", []),
        ("10.example.net", []),
        ("a:b", []),
        ("a\0b", []),
    ],
)
def test_literals(host, found):
    assert literal(host, 80) == found


def test_a_literal_asks_nobody_and_has_no_thread(resolver, monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread"))

    async def main(names, clock):
        net = Net(asyncio.get_running_loop())
        with socket.create_server(("127.0.0.1", 0)) as sock:
            transport = await net.connect(*sock.getsockname(), asyncio.Protocol(), timeout=PATIENCE)
            transport.abort()

    run(main)
    assert not resolver.asked


# names that hang


def test_those_who_ask_meanwhile_join(resolver):
    resolver.hang("db")
    resolver.answers["db"] = ["192.0.2.1"]

    async def main(names, clock):
        askers = [ask(names, "db") for _ in range(5)]
        await until(lambda: resolver.asked["db"], "asked")
        askers.pop().cancel()  # gives up; the others do not
        other_port = ask(names, "db", port=81)
        await asyncio.sleep(0)
        resolver.let_go("db")
        assert await asyncio.gather(*askers) == [four("192.0.2.1")] * 4
        assert await other_port == [(FOUR, ("192.0.2.1", 81))]
        assert resolver.asked["db"] == 1

    run(main)


def test_a_share_of_names_that_all_hang_holds_up_no_other_share(resolver):
    dead = [f"dead-{number}" for number in range(AT_ONCE)]
    resolver.hang(*dead)
    resolver.answers |= {"hub": ["192.0.2.1"], "db": ["192.0.2.2"], dead[0]: ["192.0.2.3"]}

    async def main(names, clock):
        hung = [ask(names, name) for name in dead]
        await until(lambda: len(resolver.asked) == AT_ONCE, "all threads of the share hang")
        assert await names.find("hub", "hub", 80, NEVER) == four("192.0.2.1")
        late = ask(names, "db")  # of their own share: the next place that is free is its
        await asyncio.sleep(0)
        assert not resolver.asked["db"]
        resolver.let_go(dead[0])
        assert await late == four("192.0.2.2") and await hung[0] == four("192.0.2.3")
        for one in hung[1:]:
            one.cancel()

    run(main)


def test_the_last_answer_serves_while_the_next_does_not_come(resolver, lines, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_SEC", 0.0)
    resolver.answers["db"] = ["192.0.2.1"]

    async def main(names, clock):
        await names.find("target", "db", 80, NEVER)
        monkeypatch.setattr(module, "HANGS_SEC", 0.01)  # not before: on a slow machine the first would hang, too
        resolver.hang("db")
        resolver.answers["db"] = ["192.0.2.2"]
        clock.now += 600
        for _ in range(3):
            assert await names.find("target", "db", 80, NEVER) == four("192.0.2.1")
        await until(lambda: names.counts["target"]["hung"], "told")
        monkeypatch.setattr(module, "PATIENCE_SEC", NEVER)  # a name that is known to hang is waited for no more
        assert await names.find("target", "db", 80, NEVER) == four("192.0.2.1")
        clock.now += KEPT_SEC - 600
        too_old = ask(names, "db")
        await asyncio.sleep(0)
        clock.now += 5
        resolver.let_go("db")
        assert await too_old == four("192.0.2.2")
        assert names.counts == {"target": {"answered": 2, "failed": 0, "hung": 1, "kept": 4}}

    run(main)
    assert resolver.asked["db"] == 2
    told = [{key: value for key, value in line.items() if key not in ("ts", "logger")} for line in lines()]
    assert told == [
        {"level": "warning", "event": "name_hangs", "host": "db", "share": "target", "kept_sec": 600},
        {
            "level": "info",
            "event": "name_answers",
            "host": "db",
            "share": "target",
            "duration_sec": KEPT_SEC - 600 + 5,
        },
    ]


def test_an_answer_within_the_patience_is_taken_instead_of_the_last(resolver, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_SEC", NEVER)
    resolver.answers["db"] = ["192.0.2.1"]

    async def main(names, clock):
        await names.find("target", "db", 80, NEVER)
        resolver.hang("db")
        resolver.answers["db"] = ["192.0.2.2"]
        clock.now += FRESH_SEC
        asker = ask(names, "db")
        await until(lambda: resolver.asked["db"] == 2, "asked")
        resolver.let_go("db")
        assert await asker == four("192.0.2.2") and not names.counts["target"]["kept"]

    run(main)


# names that fail


def test_a_failure_is_told_to_all_who_asked_and_asked_again(resolver):
    resolver.hang("db")

    async def main(names, clock):
        askers = [ask(names, "db") for _ in range(3)]
        await until(lambda: resolver.asked["db"], "asked")
        resolver.let_go("db")
        failures = await asyncio.gather(*askers, return_exceptions=True)
        assert [failure.args for failure in failures] == [NONE.args] * 3 and len({id(one) for one in failures}) == 3
        resolver.answers["db"] = ["192.0.2.1"]
        assert await names.find("target", "db", 80, NEVER) == four("192.0.2.1")
        assert names.counts == {"target": {"answered": 1, "failed": 1, "hung": 0, "kept": 0}}

    run(main)


def test_the_last_answer_serves_while_the_resolver_fails_and_not_when_the_name_is_gone(resolver):
    resolver.answers["db"] = ["192.0.2.1"]

    async def main(names, clock):
        await names.find("target", "db", 80, NEVER)
        resolver.answers["db"] = LATER
        clock.now += 10
        for _ in range(3):  # the resolver is left alone for a moment
            assert await names.find("target", "db", 80, NEVER) == four("192.0.2.1")
        assert names.counts["target"] == {"answered": 1, "failed": 1, "hung": 0, "kept": 3}
        resolver.answers["db"] = NONE
        clock.now += 10
        await names.find("target", "db", 80, NEVER)  # known to fail: taken at once, and asked for behind
        await until(lambda: names.counts["target"]["failed"] == 2, "no such name")
        with pytest.raises(socket.gaierror, match="not known"):
            await names.find("target", "db", 80, NEVER)

    run(main)


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "a\0b"])
def test_what_cannot_be_a_name(host):
    async def main(names, clock):
        with pytest.raises(socket.gaierror):
            await names.find("target", host, 80, NEVER)

    run(main)


def test_no_thread_to_be_had(resolver, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    async def main(names, clock):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(BlockingIOError):
                await names.find("target", "db", 80, NEVER)
        resolver.answers["db"] = ["192.0.2.1"]
        assert await names.find("target", "db", 80, NEVER) == four("192.0.2.1")

    run(main)


# what is kept


def test_an_answer_is_fresh_for_a_moment(resolver):
    resolver.answers["db"] = ["192.0.2.1"]

    async def main(names, clock):
        for _ in range(3):
            assert await names.find("target", "db", 80, NEVER) == four("192.0.2.1")
        assert resolver.asked["db"] == 1
        resolver.answers["db"] = ["192.0.2.2"]
        clock.now += FRESH_SEC
        assert await names.find("target", "db", 80, NEVER) == four("192.0.2.2")

    run(main)


def test_answers_are_bounded_and_the_oldest_goes(resolver, monkeypatch):
    monkeypatch.setattr(module, "NAMES_MAX", 4)
    hosts = [f"h{number}" for number in range(6)]
    resolver.answers |= {host: ["192.0.2.1"] for host in hosts}

    async def main(names, clock):
        for host in hosts:
            clock.now += 0.01
            await names.find("target", host, 80, NEVER)
        for host in hosts[2:]:
            await names.find("target", host, 80, NEVER)
        assert resolver.asked == dict.fromkeys(hosts, 1)
        await names.find("target", hosts[0], 80, NEVER)
        assert resolver.asked[hosts[0]] == 2

    run(main)


# the order


def test_families_take_turns_from_the_first_on():
    a, b, c = ((SIX, (f"2001:db8::{number}", 0, 0, 0)) for number in range(3))
    d, e = ((FOUR, (f"192.0.2.{number}", 0)) for number in range(2))
    assert interleaved([a, b, a, c, d, e]) == [a, d, b, e, c]
    assert interleaved([d, a, b]) == [d, a, b]


def test_what_answered_where_the_first_did_not_comes_first_for_a_while(resolver):
    resolver.answers["db"] = addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]

    async def main(names, clock):
        await names.find("target", "db", 80, NEVER)
        names.worked("target", "db", four("192.0.2.3")[0])
        for _ in range(2):  # also by the next answer
            assert await names.find("target", "db", 80, NEVER) == four("192.0.2.3", "192.0.2.1", "192.0.2.2")
            clock.now += FRESH_SEC
        resolver.answers["db"] = addresses[:2]
        assert await names.find("target", "db", 80, NEVER) == four(*addresses[:2])
        resolver.answers["db"] = addresses
        clock.now += PREFER_SEC
        assert await names.find("target", "db", 80, NEVER) == four(*addresses)

    run(main)


# a name on real sockets


def test_a_target_by_a_name_whose_first_address_refuses(resolver):
    async def main(names, clock):
        net = Net(asyncio.get_running_loop())
        with socket.create_server(("127.0.0.2", 0)) as sock:
            port = sock.getsockname()[1]
            resolver.answers["db"] = ["127.0.0.1", "127.0.0.2"]
            transport = await net.connect("db", port, asyncio.Protocol(), timeout=PATIENCE)
            assert transport.get_extra_info("peername") == ("127.0.0.2", port)
            transport.abort()
            assert [where for _, where in await net.names.find("target", "db", port, NEVER)][0][0] == "127.0.0.2"
        with pytest.raises(ConnectionRefusedError):
            await net.connect("db", port, asyncio.Protocol(), timeout=PATIENCE)

    run(main)


def test_a_look_up_that_hangs_does_not_hold_up_the_end_of_the_process():
    code = """
import asyncio, socket, threading
from ncfast.net.names import Names
begun = threading.Event()
socket.getaddrinfo = lambda *_, **__: begun.set() or threading.Event().wait()
async def main():
    asyncio.create_task(Names(asyncio.get_running_loop(), lambda: 0.0).find("target", "db", 80, 5.0))
    while not begun.is_set():
        await asyncio.sleep(0)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_look_up_that_ends_after_the_loop_is_told_to_nobody(resolver, monkeypatch):
    fallen = []
    monkeypatch.setattr(threading, "excepthook", fallen.append)
    resolver.hang("db")

    async def main(names, clock):
        ask(names, "db")
        await until(lambda: resolver.asked["db"], "asked")

    run(main)
    resolver.let_go("db")
    for thread in threading.enumerate():
        if thread.name == "look-up":
            thread.join(PATIENCE)
    assert not fallen
