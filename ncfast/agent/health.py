"""What a health check says to a target and must hear from it, and the connection it does that on.

A dialogue knows no socket: it yields what to say and how many bytes it wants to hear, gets exactly these, and returns
its parting words. Each is the least that its protocol counts as neither an error nor an attack.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from ncfast.config.agent import Health
from ncfast.config.values import Address
from ncfast.core.errors import NcfastError
from ncfast.net.seam import Net

LONGEST = 16384  # bytes of one message that a check reads; a greeting, or a root DSE without attributes, is far below


class Step(NamedTuple):
    """`say` these bytes, then hear `need` more. `expected` is what they should be, in words of ours."""

    say: bytes
    need: int
    expected: str


Dialogue = Generator[Step, bytes, bytes]


class Unexpected(NcfastError):
    """The bytes heard are not what the dialogue expected."""


class WrongAnswer(NcfastError):
    """The target took the connection, and answered with `got` where a dialogue expected something else."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected = expected
        self.got = got


def dialogue(health: Health) -> Dialogue:
    """What `health` asks for."""
    return PROTOCOLS[health.protocol](health)


def _text(health: Health) -> Dialogue:
    say, expect = ((text or "").encode("latin-1") for text in (health.send, health.expect))
    for byte in expect:  # one at a time: a wrong answer may be shorter, and nothing may come after it
        if (yield Step(say, 1, "an answer that begins with health.expect"))[0] != byte:
            raise Unexpected
        say = b""
    return b""


# MySQL and MariaDB count a connection that ends before the client's login against max_connect_errors, whatever it has
# said: nothing, COM_QUIT, or an SSLRequest. A login that is denied is not counted there (COUNT_HANDSHAKE_ERRORS and
# SUM_CONNECT_ERRORS of performance_schema.host_cache). Capabilities and plug-in as HAProxy's `mysql-check user`.

_MYSQL_CAPABILITIES = 0x1 | 0x200 | 0x8000 | 0x80000  # long password, 4.1 protocol, its passwords, plug-ins
_MYSQL_PACKET = 1 << 24  # bytes; the most that a packet can have
_MYSQL_UTF8 = 33  # character set utf8_general_ci
_MYSQL_QUIT = b"\x01\0\0\0\x01"
_MYSQL_DENIED = (1045, 1698, 3159)  # access denied, without a password, without TLS
_MYSQL_SIGNATURES = {b"client_ed25519": bytes(64)}  # plug-ins that take an answer of another size for a broken one


def _mysql(health: Health) -> Dialogue:
    _, greeting = yield from _mysql_packet(b"", "a MySQL greeting")
    if not greeting.startswith(b"\x0a"):
        raise Unexpected
    user = (health.user or "ncfast").encode()
    login = struct.pack("<IIB23x", _MYSQL_CAPABILITIES, _MYSQL_PACKET, _MYSQL_UTF8)
    login += user + b"\0" + b"\0" + b"mysql_native_password\0"
    expected = "a MySQL login taken, or denied"
    number, answer = yield from _mysql_packet(_mysql_packed(1, login), expected)
    if answer.startswith(b"\xfe"):  # the account has another plug-in; who is unknown gets somebody's
        plugin = answer[1:].partition(b"\0")[0]
        switched = _mysql_packed((number + 1) & 0xFF, _MYSQL_SIGNATURES.get(plugin, b""))
        _, answer = yield from _mysql_packet(switched, expected)
    if answer.startswith(b"\0"):
        return _MYSQL_QUIT
    if answer.startswith(b"\xff") and int.from_bytes(answer[1:3], "little") in _MYSQL_DENIED:
        return b""
    raise Unexpected


def _mysql_packed(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def _mysql_packet(say: bytes, expected: str) -> Generator[Step, bytes, tuple[int, bytes]]:
    head = yield Step(say, 4, expected)
    size = int.from_bytes(head[:3], "little")
    if not 0 < size <= LONGEST:
        raise Unexpected
    return head[3], (yield Step(b"", size, expected))


# PostgreSQL answers a GSSENCRequest (since version 12) with one byte, and takes it without a word in its log when the
# client then leaves; after an SSLRequest a server with TLS logs that the handshake failed.

_POSTGRES_GSSENC = struct.pack("!II", 8, 80877104)


def _postgres(health: Health) -> Dialogue:
    if (yield Step(_POSTGRES_GSSENC, 1, "a PostgreSQL answer to GSSENCRequest (G, N or E)")) not in (b"G", b"N", b"E"):
        raise Unexpected
    return b""


# LDAP: the root DSE, without a bind (RFC 4512 5.1), without attributes (RFC 4511 4.5.1.8). A server that wants a bind
# first says so in its result, and is well.

_LDAP_SEARCH = (
    b"\x30\x2a\x02\x01\x01\x63\x25\x04\x00\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00"
    b"\x87\x0bobjectClass\x30\x05\x04\x031.1"
)
_LDAP_UNBIND = b"\x30\x05\x02\x01\x02\x42\x00"
_LDAP_OURS = b"\x02\x01\x01"  # message 1; a notice of disconnection has 0
_LDAP_DONE = 0x65
_LDAP_UNWELL = (51, 52)  # busy, unavailable
_LDAP_MESSAGES = 4  # one entry, its result, and a reference or two


def _ldap(health: Health) -> Dialogue:
    say = _LDAP_SEARCH
    for _ in range(_LDAP_MESSAGES):
        message = yield from _ldap_message(say)
        if not message.startswith(_LDAP_OURS):
            raise Unexpected
        if message[3:4] == bytes([_LDAP_DONE]):
            long = message[4] & 0x7F if message[4:5] >= b"\x80" else 0  # bytes of the length
            result = message[5 + long : 8 + long]
            if result[:2] != b"\x0a\x01" or len(result) < 3 or result[2] in _LDAP_UNWELL:
                raise Unexpected
            return _LDAP_UNBIND
        say = b""
    raise Unexpected


def _ldap_message(say: bytes) -> Generator[Step, bytes, bytes]:
    expected = "the LDAP result of a search for the root DSE, neither busy nor unavailable"
    tag, size = yield Step(say, 2, expected)
    if tag != 0x30:
        raise Unexpected
    if size & 0x80:
        if not 0x81 <= size <= 0x84:
            raise Unexpected
        size = int.from_bytes((yield Step(b"", size & 0x7F, expected)), "big")
    if not 0 < size <= LONGEST:
        raise Unexpected
    return (yield Step(b"", size, expected))


_REDIS_WELL = (b"+PONG", b"-NOAU", b"-NOPE")  # NOAUTH and NOPERM: it serves whoever has logged in


def _redis(health: Health) -> Dialogue:
    if (yield Step(b"*1\r\n$4\r\nPING\r\n", 5, "+PONG, -NOAUTH or -NOPERM from Redis")) not in _REDIS_WELL:
        raise Unexpected
    return b""


PROTOCOLS: dict[str, Callable[[Health], Dialogue]] = {
    "tcp": _text,
    "mysql": _mysql,
    "postgres": _postgres,
    "ldap": _ldap,
    "redis": _redis,
}


async def probe(net: Net, target: Address, health: Health, header: bytes) -> None:
    """Connects, says `header`, and has the dialogue of `health`, all within its `timeout_sec`.

    Raises `WrongAnswer`, OSError and TimeoutError (no connection in time).
    """
    talk = _Probe(header, dialogue(health), net.loop.create_future())
    try:
        async with asyncio.timeout(health.timeout_sec):
            await net.connect(target.host, target.port, talk, timeout=health.timeout_sec)
            got = await talk.over
    except TimeoutError:
        if not talk.connected:
            raise
        got = "nothing"
    finally:
        talk.close()
    if got:
        raise WrongAnswer(talk.expected, got)


class _Probe(asyncio.Protocol):
    """A dialogue on a connection. `over` tells what came instead of what was expected; nothing if all was well."""

    def __init__(self, header: bytes, dialogue: Dialogue, over: asyncio.Future[str]) -> None:
        self.over = over
        self._header = header
        self._dialogue = dialogue
        self._transport: Any = None
        self._step: Step
        self._heard = b""

    @property
    def connected(self) -> bool:
        return self._transport is not None

    @property
    def expected(self) -> str:
        return self._step.expected

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._advance(None, self._header)

    def data_received(self, data: bytes) -> None:
        if not self.over.done():
            self._heard += data
        while not self.over.done() and len(self._heard) >= self._step.need:
            heard, self._heard = self._heard[: self._step.need], self._heard[self._step.need :]
            self._advance(heard)

    def eof_received(self) -> None:
        self._end("the end of the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("the end of the connection")

    def _advance(self, heard: bytes | None, say: bytes = b"") -> None:
        got = None
        try:
            self._step = next(self._dialogue) if heard is None else self._dialogue.send(heard)
            say += self._step.say
        except StopIteration as parting:
            say += parting.value
            got = ""
        except Unexpected:
            got = "another answer"
        if say:
            self._transport.write(say)
        if got is not None:
            self._end(got)

    def _end(self, got: str) -> None:
        if not self.over.done():
            self.over.set_result(got)
