"""Health checks: what is said and must be heard in each protocol, and when a target is asked at all."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from typing import Any

import pytest
import uvloop
from support.until import SCENARIO_SEC, until

from agent.hubs import M_RST, Service, World
from ncfast.agent import health
from ncfast.agent.health import Unexpected, WrongAnswer, dialogue, probe
from ncfast.agent.target import Target
from ncfast.config.agent import Health
from ncfast.config.values import Address
from ncfast.net.proxyproto import build
from ncfast.net.seam import Net

SLOW = {"interval_sec": 3600, "fall": 1, "rise": 1}  # checks are the test's own, but for the one at the start


def mysql(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


GREETING = mysql(0, b"\x0a5.5.5-10.11.19-MariaDB\0" + bytes(50))
DENIED = mysql(2, b"\xff\x15\x04#28000Access denied for user 'ncfast'@'site'")
LOGIN = mysql(1, b"\x01\x82\x08\x00\x00\x00\x00\x01\x21" + bytes(23) + b"ncfast\0\0mysql_native_password\0")
QUIT = mysql(0, b"\x01")
SWITCH = mysql(2, b"\xfecaching_sha2_password\0" + bytes(21))
SWITCH_ED25519 = mysql(2, b"\xfeclient_ed25519\0" + bytes(32))
SEARCH = health._LDAP_SEARCH
UNBIND = b"\x30\x05\x02\x01\x02\x42\x00"
ENTRY = b"\x30\x09\x02\x01\x01\x64\x04\x04\x00\x30\x00"
PING = b"*1\r\n$4\r\nPING\r\n"
GSSENC = b"\0\0\0\x08\x04\xd2\x16\x30"


def done(code: int) -> bytes:
    return b"\x30\x0c\x02\x01\x01\x65\x07\x0a\x01" + bytes([code]) + b"\x04\0\x04\0"


# what the target says, and what is said to it in all
WELL = {
    "connect": ({}, b"", b""),
    "greeting": ({"expect": "220 "}, b"220 mail.example.net ESMTP\r\n", b""),
    "question": ({"send": "GET /\r\n\xff", "expect": "HTTP/1.1 200"}, b"HTTP/1.1 200 OK\r\n", b"GET /\r\n\xff"),
    "mysql denied": ({"protocol": "mysql"}, GREETING + DENIED, LOGIN),
    "mysql without TLS": ({"protocol": "mysql"}, GREETING + mysql(2, b"\xff\x57\x0c#HY000TLS"), LOGIN),
    "mysql taken": ({"protocol": "mysql"}, GREETING + mysql(2, b"\0\0\0\x02\0\0\0"), LOGIN + QUIT),
    "mysql user": (
        {"protocol": "mysql", "user": "chk"},
        GREETING + mysql(2, b"\0\0\0\x02\0\0\0"),
        mysql(1, LOGIN[4:].replace(b"ncfast", b"chk")) + QUIT,
    ),
    "mysql other plug-in": (
        {"protocol": "mysql"},
        GREETING + SWITCH + mysql(4, b"\0\0\0\x02\0\0\0"),
        LOGIN + mysql(3, b"") + QUIT,
    ),
    "mysql ed25519": (
        {"protocol": "mysql"},
        GREETING + SWITCH_ED25519 + mysql(4, DENIED[4:]),
        LOGIN + mysql(3, bytes(64)),
    ),
    "postgres G": ({"protocol": "postgres"}, b"G", GSSENC),
    "postgres N": ({"protocol": "postgres"}, b"N", GSSENC),
    "postgres E": ({"protocol": "postgres"}, b"E\0\0\0\x10", GSSENC),
    "ldap entry": ({"protocol": "ldap"}, ENTRY + done(0), SEARCH + UNBIND),
    "ldap bind first": ({"protocol": "ldap"}, done(1), SEARCH + UNBIND),
    "ldap TLS first": ({"protocol": "ldap"}, done(13), SEARCH + UNBIND),
    "ldap long lengths": (  # as Active Directory writes them
        {"protocol": "ldap"},
        b"\x30\x84\0\0\0\x10\x02\x01\x01\x65\x84\0\0\0\x07\x0a\x01\0\x04\0\x04\0",
        SEARCH + UNBIND,
    ),
    "redis": ({"protocol": "redis"}, b"+PONG\r\n", PING),
    "redis password": ({"protocol": "redis"}, b"-NOAUTH Authentication required.\r\n", PING),
    "redis permission": ({"protocol": "redis"}, b"-NOPERM no permission\r\n", PING),
}

WRONG = {
    "greeting": ({"expect": "220 "}, b"221 bye\r\n"),
    "question": ({"send": "x", "expect": "HTTP/1.1 200"}, b"H3"),
    "mysql blocked": ({"protocol": "mysql"}, mysql(0, b"\xff\x69\x04Host 'site' is blocked")),
    "mysql too many": ({"protocol": "mysql"}, mysql(0, b"\xff\x10\x04Too many connections")),
    "mysql bad handshake": ({"protocol": "mysql"}, GREETING + mysql(2, b"\xff\x13\x04#08S01Bad handshake")),
    "mysql two switches": ({"protocol": "mysql"}, GREETING + SWITCH + mysql(4, SWITCH[4:])),
    "mysql empty": ({"protocol": "mysql"}, mysql(0, b"")),
    "mysql of 16 MiB": ({"protocol": "mysql"}, b"\xff\xff\xff\0"),
    "mysql is ssh": ({"protocol": "mysql"}, b"SSH-2.0-OpenSSH\r\n"),
    "postgres": ({"protocol": "postgres"}, b"H"),
    "ldap busy": ({"protocol": "ldap"}, done(51)),
    "ldap unavailable": ({"protocol": "ldap"}, ENTRY + done(52)),
    "ldap notice of disconnection": ({"protocol": "ldap"}, b"\x30\x0c\x02\x01\x00\x78\x07\x0a\x01\x34\x04\0\x04\0"),
    "ldap without an end": ({"protocol": "ldap"}, ENTRY * 4),
    "ldap cut short": ({"protocol": "ldap"}, b"\x30\x04\x02\x01\x01\x65"),
    "ldap cut in its length": ({"protocol": "ldap"}, b"\x30\x05\x02\x01\x01\x65\x84"),
    "ldap of 4 GiB": ({"protocol": "ldap"}, b"\x30\x84\xff\xff\xff\xff"),
    "ldap without a length": ({"protocol": "ldap"}, b"\x30\x80\x02"),
    "ldap of 5 bytes of length": ({"protocol": "ldap"}, b"\x30\x85\0\0\0\0\x01"),
    "ldap empty": ({"protocol": "ldap"}, b"\x30\x00"),
    "ldap is http": ({"protocol": "ldap"}, b"HTTP/1.1 400\r\n"),
    "redis loads": ({"protocol": "redis"}, b"-LOADING Redis is loading\r\n"),
    "redis protected": ({"protocol": "redis"}, b"-DENIED Redis is running in protected mode\r\n"),
    "redis full": ({"protocol": "redis"}, b"-ERR max number of clients reached\r\n"),
}
CUT_SHORT = {"ldap cut short", "ldap cut in its length"}


def talk(settings: dict[str, Any], answer: bytes) -> bytes:
    """The whole dialogue; what was said in it. Raises `Unexpected`."""
    said, one = b"", dialogue(Health(**settings))
    try:
        step = next(one)
        while True:
            said += step.say
            assert 0 < step.need <= health.LONGEST and len(answer) >= step.need and step.expected
            heard, answer = answer[: step.need], answer[step.need :]
            step = one.send(heard)
    except StopIteration as parting:
        return said + parting.value


@pytest.mark.parametrize("name", WELL)
def test_what_is_said_and_what_is_well(name):
    settings, answer, said = WELL[name]
    assert talk(settings, answer) == said


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_well(name):
    settings, answer = WRONG[name]
    with pytest.raises(Unexpected):
        talk(settings, answer)


@pytest.mark.parametrize("protocol", sorted(health.PROTOCOLS.keys() - {"tcp"}))
def test_whatever_comes_ends_the_dialogue_or_goes_on(protocol):
    for seed in range(3000):
        rng = random.Random(seed)
        noise = rng.randbytes(64)
        if seed % 2:
            noise = bytes([0x30, seed % 60]) + b"\x02\x01\x01\x65" + noise
        one = dialogue(Health(protocol=protocol))
        step = next(one)
        try:
            while step.need <= len(noise):
                heard, noise = noise[: step.need], noise[step.need :]
                step = one.send(heard)
        except (StopIteration, Unexpected):
            pass


# On a connection


class Server:
    """Answers each connection with `answer`, whatever comes, and then is silent or leaves."""

    def __init__(self, answer: bytes, *, leaves: bool = False) -> None:
        self.heard: list[bytearray] = []
        self.over = 0
        self._answer = answer
        self._leaves = leaves

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = Address(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = bytearray()
        self.heard.append(heard)
        try:
            writer.write(self._answer)
            if self._leaves:
                writer.write_eof()
            while data := await reader.read(65536):
                heard += data
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.over += 1


def run(main):
    """`main(net)` on the product's loop."""

    async def limited():
        async with asyncio.timeout(SCENARIO_SEC):
            await main(Net(asyncio.get_running_loop()))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


@pytest.mark.parametrize("name", WELL)
def test_well_on_a_connection(name):
    settings, answer, said = WELL[name]
    header = build("v2", None, None)

    async def main(net):
        async with Server(answer) as server:
            await probe(net, server.address, Health(timeout_sec=300, **settings), header)
            await until(lambda: server.over, "it is left")
            assert server.heard == [header + said]

    run(main)


class Wire:
    def __init__(self) -> None:
        self.said = b""

    def write(self, data: bytes) -> None:
        self.said += data


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", WELL)
def test_an_answer_in_pieces(name, size):
    settings, answer, said = WELL[name]

    async def main(net):
        over, wire = net.loop.create_future(), Wire()
        one = health._Probe(b"", dialogue(Health(**settings)), over)
        one.connection_made(wire)
        for at in range(0, len(answer), size):
            one.data_received(answer[at : at + size])
        assert over.result() == "" and wire.said == said

    run(main)


@pytest.mark.parametrize("name", sorted(WRONG.keys() - CUT_SHORT))
def test_wrong_on_a_connection(name):
    settings, answer = WRONG[name]

    async def main(net):
        async with Server(answer) as server:
            with pytest.raises(WrongAnswer) as wrong:
                await probe(net, server.address, Health(timeout_sec=300, **settings), b"")
            assert wrong.value.got == "another answer" and wrong.value.expected
            await until(lambda: server.over, "it is left")

    run(main)


async def gave_up(net: Net, address: Address, protocol: str) -> str:
    """What came of a check that had time enough to connect."""
    timeout = 0.05
    while True:
        try:
            await probe(net, address, Health(timeout_sec=timeout, protocol=protocol), b"")
        except TimeoutError:
            timeout *= 2
        except WrongAnswer as wrong:
            return wrong.got


@pytest.mark.parametrize("protocol", sorted(health.PROTOCOLS.keys() - {"tcp"}))
def test_a_target_that_leaves_or_says_nothing(protocol):
    async def main(net):
        async with Server(b"", leaves=True) as server:
            with pytest.raises(WrongAnswer, match="the end of the connection"):
                await probe(net, server.address, Health(timeout_sec=300, protocol=protocol), b"")
        async with Server(b"") as server:
            assert await gave_up(net, server.address, protocol) == "nothing"
            await until(lambda: server.over == len(server.heard), "it is left")

    run(main)


# When a target is asked


def target(world: World) -> Target:
    return world.agent.services.targets["echo"]


async def checked_at_start(world: World) -> None:
    await until(lambda: world.service.received, "the check at the start")


def test_a_flow_that_reaches_the_target_is_a_check(play):
    async def scenario(world: World) -> None:
        await checked_at_start(world)
        await world.opened(await world["a"].owner())
        connections = len(world.service.received)
        assert await target(world).check(target(world).config.health)
        await asyncio.sleep(0)
        assert len(world.service.received) == connections == 2
        assert await target(world).check(target(world).config.health)  # idle since
        await until(lambda: len(world.service.received) == 3, "a check of its own")

    play(scenario, connector={"health": SLOW})


def test_a_flow_that_does_not_reach_the_target_has_it_checked(play):
    async def scenario(world: World) -> None:
        await checked_at_start(world)
        await world.opened(await world["a"].owner())
        world.service.server.close()
        tunnel, flow = await world["a"].owner(), world.flow()
        tunnel.open(flow)
        await tunnel.want(M_RST, cid=flow.cid)
        assert await target(world).check(target(world).config.health) is False

    play(scenario, connector={"health": SLOW})


def test_a_flow_is_no_check_where_an_answer_is_asked_for(play, monkeypatch):
    monkeypatch.setattr(Service, "answer", b"-LOADING")

    async def scenario(world: World) -> None:
        await until(lambda: world.events("check_failed"), "the check at the start")
        await world.opened(await world["a"].owner())
        assert await target(world).check(target(world).config.health) is False

    play(scenario, connector={"health": SLOW | {"fall": 100, "timeout_sec": 300, "protocol": "redis"}})


def test_a_wrong_answer_is_told_without_its_words(play, monkeypatch):
    monkeypatch.setattr(Service, "answer", b"-canary")

    async def scenario(world: World) -> None:
        await until(lambda: world.events("target_down"), "withdrawn")
        assert await target(world).check(target(world).config.health) is False
        events = world.events("check_failed")
        assert len(events) == 3  # and none when it is withdrawn
        told = {"connector": "echo", "expected": "+PONG, -NOAUTH or -NOPERM from Redis", "got": "another answer"}
        assert all(event.items() >= told.items() for event in events)
        assert not any("-canary" in str(event) for event in world.events())

    play(scenario, connector={"health": {"interval_sec": 0.05, "timeout_sec": 300, "fall": 3, "protocol": "redis"}})


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_an_agent_without_descriptors_says_nothing_of_the_target(play, number):
    async def scenario(world: World) -> None:
        net, connect = world.agent.net, world.agent.net.connect

        async def exhausted(*args: Any, **options: Any) -> Any:
            raise OSError(number, os.strerror(number))

        await until(lambda: world.service.received, "checked")
        net.connect = exhausted  # type: ignore[method-assign]
        try:
            await until(lambda: len(world.events("check_skipped")) >= 5, "five checks that were none")
            assert target(world).healthy and not world.events("target_down")
            assert world.events("check_skipped")[0]["detail"] == "out of descriptors"
        finally:
            net.connect = connect  # type: ignore[method-assign]
        world.service.server.close()
        await until(lambda: world.events("target_down"), "and what is down is noticed")

    play(scenario, connector={"health": {"interval_sec": 0.05, "timeout_sec": 300, "fall": 2, "rise": 1}})


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_target_that_wants_a_proxy_header_gets_one_that_forwards_nobody(play, version):
    async def scenario(world: World) -> None:
        await until(lambda: world.service.received and world.service.received[0], "the header")
        await until(lambda: world.service.ends, "it is left")
        assert bytes(world.service.received[0]) == build(version, None, None)

    play(scenario, connector={"health": SLOW, "proxy_protocol": version})
