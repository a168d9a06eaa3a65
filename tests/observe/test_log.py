"""Logs: nothing forged, nothing leaked, nothing flooding, nothing thrown into the caller."""

from __future__ import annotations

import ast
import asyncio
import gc
import io
import itertools
import logging
import os
import random
import re
from ipaddress import ip_address
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ncfast
from ncfast.observe import log
from ncfast.observe.log.limiter import MAX_EVENTS, EventLimiter
from ncfast.observe.log.line import shown, written
from ncfast.observe.log.masking import RULES, Mask

PACKAGE = Path(ncfast.__file__).parent
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLWNhbmFyeQ"


class Captured(io.StringIO):
    """A log stream whose lines can be read back as events."""

    def lines(self) -> list[str]:
        assert log.flush(10)
        return self.getvalue().split("\n")[:-1]

    def events(self) -> list[dict]:
        return [orjson.loads(line) for line in self.lines()]


@pytest.fixture
def captured():
    stream = Captured()
    assert log.flush(10)  # what other tests have logged
    log.setup("info", "json", stream=stream, clock=itertools.count().__next__)  # a second a line: no thinning
    yield stream
    log.setup()


def hostile_strings(count: int, rng: random.Random) -> list[str]:
    fixed = [
        '", "level": "info", "event": "forged"}\n{"ts": "x"}',
        "\r\n2026-01-01 forged",
        "\x1b[2J\x1b]0;title\x07",
        "\u2028\u2029\x85\x0b\x0c\x1c",
        "\ud800\udfff",
        "\u202egnp.exe",
        "%s%n{0}{event}",
        "\0" * 5000,
        "é" * 5000,
        "\\n\\u000a",
        "",
    ]
    alphabet = [chr(c) for c in range(0x100)] + list('\u2028\u2029\u202e\ufeff\ud800\U0001f600"\\{}[]:,')
    made = ("".join(rng.choices(alphabet, k=rng.randrange(0, 400))) for _ in itertools.repeat(None))
    return fixed + list(itertools.islice(made, count - len(fixed)))


def test_hostile_strings_in_every_field_stay_one_line_each(captured):
    rng = random.Random(1)
    names = itertools.cycle(sorted(log.FIELDS))
    logger = log.get("test")
    before = log.dropped()
    texts = hostile_strings(10_000, rng)
    for number, text in enumerate(texts):
        fields = {next(names): text for _ in range(3)}
        shape = rng.randrange(4)
        if shape == 0:
            fields["connectors"] = [text, {text: text}]
        elif shape == 1:
            fields["listeners"] = {text: [text, (text,)]}
        elif shape == 2:
            fields["error"] = ValueError(text)
        else:
            fields[text or "x"] = text  # not a listed name
        logger.warning("hostile", **fields)
        if number % 1000 == 0:
            assert log.flush(10)
    lines = captured.lines()
    assert len(lines) == len(texts)
    assert log.dropped() == before
    for line in lines:
        assert line.isprintable() and line.splitlines() == [line]
        event = orjson.loads(line)
        assert list(event)[:4] == ["ts", "level", "event", "logger"]
        assert event["event"] == "hostile" and event["level"] == "warning"
        assert all(len(value) <= log.MAX_TEXT for value in event.values() if isinstance(value, str))


def test_console_lines_are_as_safe(captured):
    log.setup("info", "console", stream=captured, clock=itertools.count().__next__)
    logger = log.get("test")
    texts = hostile_strings(500, random.Random(2))
    logger.info(texts[0])
    for text in texts:
        logger.info("hostile", reason=text, listeners={text: text}, error=KeyError(text), **{text or "x": 1})
    lines = captured.lines()
    assert len(lines) == len(texts) + 1
    assert all(line.isprintable() for line in lines)


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("rude")


@settings(max_examples=200)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.text()
        | st.binary()
        | st.sampled_from([Rude(), Rude, ValueError("x"), object()]),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    )
)
def test_no_value_raises_into_the_caller(value):
    stream = Captured()
    log.setup("info", "json", stream=stream)
    logger = log.get("test")
    for name in ("client", "agent_id", "hub", "reason", "size"):
        logger.info("any", **{name: value})
    for line in stream.lines():
        orjson.loads(line)


def test_a_field_that_collides_with_the_call_does_not_raise(captured):
    log.get("test").info("x", event=1, self=2, level=3)
    log.security("x", event=1)
    log.access("event").write(Rude())
    log.access("cid").write("1", "2")  # one too many
    log.get("test").info("after", client=Rude())
    log.get("test").info("last")
    assert captured.events()[-1]["event"] == "last"


def test_canaries_never_reach_the_log(captured):
    """Token, address, subject, payload and exception text, at debug level, by every way a caller may take."""
    log.setup("debug", "json", "hash", stream=captured, clock=itertools.count().__next__, mask_agents="hash")
    logger = log.get("test")
    canaries = {
        "token": TOKEN,
        "address": "198.51.100.77",
        "sub": "canary-agent",
        "payload": "canary-payload",
    }
    try:
        raise ValueError(f"bad kid {canaries['payload']} from {canaries['address']}")
    except ValueError as error:
        logger.exception("parser_failed", reason="bad_kid", client=(canaries["address"], 4321))
        logger.error("again", error=error)
    logger.debug("odd", method=canaries["payload"].encode(), trace=[canaries["payload"].encode()])
    logger.info("url", hub=f"wss://{canaries['payload']}:{canaries['payload']}@h.example/tunnel?t={TOKEN}")
    logger.info("header", reason=f"Authorization: Bearer {TOKEN}", unknown=canaries["payload"])
    for field in ("client", "remote", "peer", "source"):
        for text in ("{}", "{}:443", "[::ffff:{}]:443", "::ffff:{}"):
            logger.info("peer", **{field: text.format(canaries["address"])})
    for field in ("agent", "agent_id", "sub"):
        log.security("auth_failed", **{field: canaries["sub"]}, reason=ValueError(canaries["payload"]))
    log.access("agent_id", "client", "cid").write(canaries["sub"], canaries["address"], "1")
    lines = captured.lines()
    assert len(lines) == 25
    for name, canary in canaries.items():
        assert not [line for line in lines if canary in line], name
    assert "c2lnbmF0dXJl" not in captured.getvalue()


def test_an_exception_shows_type_and_place_only(captured):
    try:
        os.stat("/does/not/exist/canary")
    except OSError:
        log.get("test").exception("stat_failed")
    (event,) = captured.events()
    assert event["error"] == "FileNotFoundError(ENOENT)"
    assert event["trace"][-1].startswith("test_log.py:")
    assert "canary" not in captured.getvalue()


def test_what_libraries_log_comes_as_events_without_their_arguments(captured):
    async def fails() -> None:
        raise ValueError("canary")

    async def main() -> None:
        task = asyncio.create_task(fails())
        await asyncio.wait([task])
        del task
        gc.collect()

    asyncio.run(main())
    logging.getLogger("some.library").warning("cannot read %s\nforged", "canary")
    logging.getLogger("some.library").info("not wanted")
    lost, warned = captured.events()
    assert (lost["event"], lost["level"], lost["library"]) == ("library_message", "error", "asyncio")
    assert lost["text"] == "Task exception was never retrieved" and lost["error"] == "ValueError"
    assert lost["trace"][-1].endswith(" fails")
    assert (warned["library"], warned["text"]) == ("some.library", "cannot read %s")
    assert "canary" not in captured.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("192.0.2.77:5000", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("[2001:db8:1:2:3::9]:80", "2001:db8:1::/48"),
        ("2001:db8:1:2:3::9", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("printer.example", "pri…"),
        ("", ""),
    ],
)
def test_truncated_addresses(text, shown):
    assert Mask("truncate", b"k").address(text) == shown


@given(st.ip_addresses(), st.integers(1, 65535))
def test_masked_addresses_keep_no_host_part(address, port):
    text = f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
    base, _, bits = Mask("truncate", b"k").address(text).partition("/")
    assert int(ip_address(base)) & ((1 << (ip_address(base).max_prefixlen - int(bits))) - 1) == 0
    hashed = Mask("hash", b"k").address(text)
    assert len(hashed) == 12 and hashed == Mask("hash", b"k").address(str(address))
    assert hashed != Mask("hash", b"other").address(text)
    assert Mask("none", b"k").address(text) == text


def test_masked_identities():
    truncate = Mask("truncate", b"k")
    assert [truncate.identity(text) for text in ("site-1", "abc", "a", "")] == ["sit…", "ab…", "…", ""]
    assert len(Mask("hash", b"k").identity("site-1")) == 12
    assert Mask("hash", b"k").identity("192.0.2.1") != Mask("hash", b"k").address("192.0.2.1")
    with pytest.raises(ValueError, match="logging.mask"):
        Mask("blur", b"k")


def test_level_mask_and_format_change_while_running(captured):
    logger = log.get("test")
    logger.debug("one")
    log.setup("debug", "json", "truncate", stream=captured)
    logger.debug("two", client="192.0.2.7:1", agent_id="site-1")  # agents are named, unless it is said otherwise
    log.setup("debug", "json", "none", stream=captured, mask_agents="truncate")
    logger.debug("masked", client="192.0.2.7:1", agent_id="site-1")
    log.setup("error", "json", "hash", stream=captured, secret=b"shared")
    logger.warning("three")
    logger.error("four", client="192.0.2.7:1")
    log.security("auth_failed", reason="expired")  # whatever the level
    two, masked, four, security = captured.events()
    assert (two["event"], two["client"], two["agent_id"]) == ("two", "192.0.2.0/24", "site-1")
    assert (masked["client"], masked["agent_id"]) == ("192.0.2.7:1", "sit…")
    assert four["client"] == Mask("hash", b"shared").address("192.0.2.7")
    assert security["security"] is True and security["event"] == "auth_failed"
    assert log.mask_address("192.0.2.7") == four["client"]


@pytest.mark.parametrize("bad", [{"level": "loud"}, {"format": "xml"}, {"mask": "blur"}, {"mask_agents": "blur"}])
def test_setup_refuses_what_it_does_not_know(bad):
    with pytest.raises(ValueError, match="must be one of"):
        log.setup(**bad)


def test_format_auto_follows_terminal_and_environment(monkeypatch):
    class Terminal(Captured):
        def isatty(self):
            return True

    def first(stream):
        log.setup(stream=stream)
        log.get("test").info("hello")
        return stream.lines()[-1]

    monkeypatch.delenv("NC_LOG_FORMAT", raising=False)
    assert first(Captured()).startswith("{")
    assert not first(Terminal()).startswith("{")
    monkeypatch.setenv("NC_LOG_FORMAT", "json")
    assert first(Terminal()).startswith("{")


def test_a_flood_is_thinned_and_counted():
    now = [0.0]
    stream = Captured()
    log.setup(stream=stream, format="json", clock=lambda: now[0])
    logger = log.get("test")
    held_before = log.suppressed()
    event = "flood_once"
    for _ in range(1000):
        logger.warning(event)
        logger.warning("quiet_once") if _ == 0 else None
    now[0] = 1.0
    logger.warning(event)
    events = [e for e in stream.events() if e["event"] == event]
    assert len(events) == 51
    assert events[-1]["suppressed"] == 950 == log.suppressed() - held_before
    assert all("suppressed" not in e for e in events[:-1])
    assert [e["event"] for e in stream.events()].count("quiet_once") == 1


def test_access_lines_have_a_bigger_bucket():
    stream = Captured()
    log.setup(stream=stream, format="json", clock=lambda: 1e6)
    access = log.access("cid", "bytes_in", "bytes_out", "reason")
    for number in range(6000):
        access.write(str(number), 1, 2, "fin")
    assert len(stream.lines()) == 5000


def test_the_limiter_is_bounded_for_made_up_events():
    limiter = EventLimiter(lambda: 0.0)
    admitted = sum(limiter.admit(f"event{number}") is not None for number in range(10_000))
    assert admitted == MAX_EVENTS + 50
    assert limiter.suppressed == 10_000 - admitted
    assert len(limiter._events) <= MAX_EVENTS + 1


def test_a_closed_stream_is_survived(captured):
    stream = Captured()
    log.setup(stream=stream)
    stream.close()
    before = log.dropped()
    log.get("test").info("nobody_reads")
    assert log.flush(10)
    assert log.dropped() == before + 1
    log.setup(stream=captured, format="json")
    log.get("test").info("again")
    assert captured.events()[-1]["event"] == "again"


def test_lines_keep_their_order_across_tasks(captured):
    async def main() -> None:
        logger = log.get("test").bind(listener="l1")
        for number in range(200):
            logger.info("ordered", count=number)
            await asyncio.sleep(0)

    asyncio.run(main())
    assert [(e["count"], e["listener"]) for e in captured.events()] == [(n, "l1") for n in range(200)]


def test_every_field_in_the_source_is_listed():
    """A new field is admitted by thinking about what it may hold, then adding it to `log.FIELDS`."""
    unlisted = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _is_log_call(node.func):
                unlisted += [
                    f"{path.relative_to(PACKAGE)}:{node.lineno} {keyword.arg}"
                    for keyword in node.keywords
                    if keyword.arg and keyword.arg not in log.FIELDS
                ]
    assert not unlisted, "add to ncfast.observe.log.FIELDS what may be logged"


def _is_log_call(func: ast.expr) -> bool:
    if not isinstance(func, ast.Attribute):
        return isinstance(func, ast.Name) and func.id == "security"
    owner = func.value.id if isinstance(func.value, ast.Name) else getattr(func.value, "attr", "")
    methods = {"debug", "info", "warning", "error", "exception", "security", "access", "bind"}
    return func.attr in methods and owner.lower().lstrip("_") in ("log", "logger")


MADE_AT_ONCE = [
    {"cid": "ab" * 16, "client": ("192.0.2.77", 50_000, "", 0), "bytes_in": 0, "bytes_out": -1, "reason": "closed"},
    {"client": "[2001:db8::1]:5", "peer": None, "remote": ("2001:db8::2", 1), "source": "no address"},
    {"agent_id": "tüftler", "sub": None, "hub": "wss://user:word@hub.example:8443/tunnel?a=b", "url": "ws://["},
    {
        "duration": 0.000001,
        "open_ms": 1.0,
        "held_ms": 86400.123456,
        "ok": True,
        "refused": False,
        "bytes_in": 2**63 - 1,
    },
    {"line": "eyJhbGciOiJIUzI1NiJ9.e30.x", "text": "x" * 1000, "bytes_out": -(2**63)},
]
LEFT_TO_OTHERS = [
    {"never_heard_of": 1},
    {"detail": 'he said "no"'},
    {"detail": "two\nlines"},
    {"detail": "back\\slash"},
    {"size": 2**63},
    {"duration": 1 / 3},
    {"duration": float("nan")},
    {"error": ValueError("x")},
    {"listeners": {"a": "b"}},
    dict.fromkeys(("detail", "file", "key", "role", "state", "transport", "version", "reason", "path"), "x" * 250),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("fields", MADE_AT_ONCE)
def test_a_line_that_is_made_at_once_says_what_the_long_way_says(fields, rule):
    mask = Mask(rule, b"k" * 32)
    at_once = written("info", "flow_closed", "access", fields, mask, mask, 7)
    shorter = written("info", "flow_closed", "access", fields, mask, mask, 0)
    assert at_once is not None and at_once.endswith(b"}\n") and at_once.count(b"\n") == 1
    said = shown("info", "flow_closed", "access", fields, mask, mask)
    for line, held_back in ((at_once, {"suppressed": 7}), (shorter, {})):
        got = orjson.loads(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", got.pop("ts"))
        expected = orjson.loads(orjson.dumps(said)) | held_back
        del expected["ts"]
        assert got == expected and list(got) == list(expected)


@pytest.mark.parametrize("fields", LEFT_TO_OTHERS)
def test_what_is_out_of_the_ordinary_goes_the_long_way(fields):
    mask = Mask("none", b"")
    assert written("info", "some_event", "hub", fields, mask, mask, 0) is None


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("host", ["192.0.2.77", "2001:db8::1", "::ffff:192.0.2.77", "fe80::1%eth0", "", "a name"])
def test_host_and_port_are_masked_as_in_one_text(rule, host):
    mask = Mask(rule, b"k" * 32)
    assert mask.end(host, 77) == mask.address(f"[{host}]:77" if ":" in host else f"{host}:77")
