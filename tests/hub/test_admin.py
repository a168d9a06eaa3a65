"""The admin edge over real sockets: its answers, its bounds, and what it does with rubbish."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import random
import re
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager, suppress

import orjson
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from support.fake_hub import FakeHub
from support.until import PATIENCE, until

from ncfast.config.hub import Admin as AdminConfig
from ncfast.config.values import Address
from ncfast.hub import page
from ncfast.hub.admin import Admin
from ncfast.hub.flows import Query
from ncfast.hub.lockout import LockRefused
from ncfast.net.request import BadRequest, HttpLimits, RequestReader, Response, answer
from ncfast.net.seam import Net
from ncfast.observe import diag, log, watchdog
from ncfast.observe.stats import Stats
from ncfast.registry import Lock

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def run(main):
    """Runs a coroutine function on uvloop, as the hub does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


@asynccontextmanager
async def admin_edge(hub=None, limits=HttpLimits()):
    net = Net(asyncio.get_running_loop())
    admin = Admin(hub or FakeHub(), net, limits)
    await admin.start(AdminConfig(bind=Address("127.0.0.1", 0)))
    try:
        yield admin, int(admin.address.rpartition(":")[2])
    finally:
        admin.close()
        await net.cancel_all()


async def exchange(port, *chunks, eof=False):
    """Sends bytes, returns all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for chunk in chunks:
            writer.write(chunk)
            await asyncio.sleep(0)
        if eof:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def fetch(port, path, method="GET", headers=None):
    """A client we did not write."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_routes():
    async def main():
        hub = FakeHub()
        async with admin_edge(hub) as (_, port):

            async def get(path, method="GET", headers=None):
                return await asyncio.to_thread(fetch, port, path, method, headers)

            status, headers, body = await get("/metrics")
            assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
            families = text_string_to_metric_families(body.decode())
            assert "nowconnect_flows_opened" in {family.name for family in families}

            status, headers, body = await get("/status")
            assert status == 200 and headers["Content-Type"] == "application/json"
            assert json.loads(body) == hub.document()

            assert (await get("/healthz"))[::2] == (200, b'{"status":"ok"}\n')
            assert (await get("/readyz"))[::2] == (200, b'{"status":"ready"}\n')
            assert (await get("/"))[0] == 200
            assert (await get("/nowhere"))[0] == 404
            assert (await get("/../etc/passwd"))[0] == 404

            status, headers, body = await get("/status", "HEAD")
            assert (status, body) == (200, b"") and int(headers["Content-Length"]) > 100

            for path in ("/metrics", "/status", "/healthz", "/readyz", "/"):
                status, headers, _ = await get(path, "POST")
                assert (status, headers["Allow"]) == (405, "GET, HEAD")
            status, headers, _ = await get("/drain")
            assert (status, headers["Allow"]) == (405, "POST")
            assert hub.drains == 0

            assert (await get("/drain", "POST", {"Origin": "http://evil.example"}))[0] == 403
            assert hub.drains == 0
            assert (await get("/drain", "POST"))[0] == 202
            assert (hub.drains, hub.hurried) == (1, False)
            assert (await get("/drain?delay=off", "POST"))[0] == 202
            assert (hub.drains, hub.hurried) == (2, True)
            assert (await get("/readyz"))[::2] == (503, b'{"status":"draining"}\n')
            assert (await get("/healthz"))[0] == 200

    run(main)


def test_agents_are_moved_by_post_and_by_no_web_page():
    async def main():
        hub = FakeHub()
        hub.movable = {"acme/site-1": "hub-b"}
        async with admin_edge(hub) as (_, port):

            async def get(*arguments):
                return await asyncio.to_thread(fetch, port, *arguments)

            asked = "/agents/move?agent=acme%2Fsite-1"
            assert (await get(asked, "POST"))[::2] == (202, b'{"agent":"acme/site-1","hub":"hub-b"}\n')
            assert (await get(f"{asked}&hub=hub-c", "POST"))[::2] == (202, b'{"agent":"acme/site-1","hub":"hub-c"}\n')
            assert (await get("/agents/move?agent=site-2", "POST"))[::2] == (409, b"no agent site-2\n")
            assert (await get("/agents/move", "POST"))[0] == 400
            assert (await get(asked))[0] == 405
            assert (await get(asked, "POST", {"Origin": "http://evil.example"}))[0] == 403

    run(main)


def test_flows_are_read_by_all_and_killed_by_post():
    async def main():
        hub = FakeHub()
        async with admin_edge(hub) as (_, port):

            async def get(*arguments):
                return await asyncio.to_thread(fetch, port, *arguments)

            status, headers, body = await get("/flows?order=idle&top=1&listener=l0&agent=a&client=192.0.2.1")
            assert status == 200 and headers["Content-Type"] == "application/json"
            assert json.loads(body)["flows"] == hub.flow_list.rows[:1]
            assert hub.flow_list.asked == [Query("idle", 1, "l0", "a", "192.0.2.1")]
            assert (await get("/flows?order=size"))[::2] == (
                400,
                b"Bad Request: order is one of held, age, moved, idle\n",
            )
            cid = hub.flow_list.rows[1]["cid"]
            assert (await get(f"/flows/kill?cid={cid}"))[0] == 405
            assert (await get(f"/flows/kill?cid={cid}", "POST", {"Origin": "http://evil.example"}))[0] == 403
            assert hub.flow_list.killed == []
            status, _, body = await get(f"/flows/kill?cid={cid}", "POST")
            assert status == 202 and json.loads(body)["cid"] == cid
            assert (await get("/flows/kill?cid=00", "POST"))[::2] == (409, b"no such flow\n")
            assert (await get("/flows/kill", "POST"))[0] == 409
            assert hub.flow_list.killed == [cid, "00", ""]

    run(main)


@pytest.mark.parametrize("name", diag.PARTS)
def test_the_process_s_inside_is_shown_as_changes_are_made(tmp_path, name):
    """Not to whoever may read metrics."""
    token = tmp_path / "token"
    token.write_text("t" * 32)

    async def main():
        async with admin_edge() as (_, port):  # loopback, and nothing else said
            status, headers, body = await asyncio.to_thread(fetch, port, f"/diag/{name}")
            assert (status, headers["Content-Type"]) == (200, diag.PARTS[name])
            assert (await asyncio.to_thread(fetch, port, f"/diag/{name}", "POST"))[0] == 405
            asked = {"Origin": "http://evil.example"}
            assert (await asyncio.to_thread(fetch, port, f"/diag/{name}", "GET", asked))[0] == 403
        net = Net(asyncio.get_running_loop())
        for more, shows, expected in (
            ({"token_file": token}, {}, 401),
            ({"token_file": token}, {"Authorization": f"Bearer {'t' * 32}"}, 200),
            ({"unix": tmp_path / "socket"}, {}, 403),
        ):
            admin = Admin(FakeHub(), net)
            await admin.start(AdminConfig(bind=Address("127.0.0.1", 0), **more))
            try:
                port = int(admin.address.rpartition(":")[2])
                for method in ("GET", "HEAD"):
                    got = await asyncio.to_thread(fetch, port, f"/diag/{name}", method, shows)
                    assert got[0] == expected, (more, method)
            finally:
                admin.close()
        await net.cancel_all()

    run(main)


def test_a_request_in_single_bytes_and_by_http_1_0():
    async def main():
        async with admin_edge() as (_, port):
            assert status_of(await exchange(port, *(bytes([b]) for b in GET))) == 200
            assert status_of(await exchange(port, b"GET /healthz HTTP/1.0\r\n\r\n", eof=True)) == 200

    run(main)


REFUSED = {
    "body": (b"POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 400),
    "chunked": (b"POST /drain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n", 400),
    "bare lf": (b"GET / HTTP/1.1\nHost: localhost\n\n", 400),
    "bare cr": (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\rc\r\n\r\n", 400),
    "folding": (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n", 400),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "pipelined": (GET + GET, 400),
    "nul": (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: \0\r\n\r\n", 400),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "http/0.9": (b"GET /\r\n\r\n", 400),
    "not ascii": (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "tls hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
    "long target": (b"GET /" + b"a" * 8300 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    "long header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 8300 + b"\r\n\r\n", 431),
    "no end": (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: bcdefgh\r\n" * 60 + b"B: " + b"c" * 9000, 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 64 + b"\r\n", 431),
    "very many headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
}


def test_malformed_and_oversize_requests_are_answered_and_closed():
    async def main():
        hub = FakeHub()
        async with admin_edge(hub) as (_, port):
            for name, (data, expected) in REFUSED.items():
                assert status_of(await exchange(port, data)) == expected, name
            assert hub.drains == 0
            assert status_of(await exchange(port, GET)) == 200

    run(main)


@pytest.mark.parametrize("name", REFUSED)
def test_the_reader_judges_the_same_whole_and_byte_by_byte(name):
    data, expected = REFUSED[name]

    def judge(chunks):
        reader = RequestReader(HttpLimits())
        try:
            for chunk in chunks:
                if reader.feed(chunk):
                    return "request"
        except BadRequest as bad:
            return int(bad.status)
        return "incomplete"

    whole, bytewise = judge([data]), judge(bytes([b]) for b in data)
    assert bytewise == whole or (name, bytewise) == ("long target", 431)  # the byte cap may speak first
    assert whole in ("request", expected)  # "request": refused for what follows it, by the protocol


@given(st.lists(st.binary(max_size=300), max_size=40))
def test_the_reader_survives_any_bytes(chunks):
    reader = RequestReader(HttpLimits())
    try:
        for chunk in chunks:
            if reader.feed(chunk):
                break
    except BadRequest as bad:
        assert 400 <= bad.status < 500


def test_the_answer_survives_a_client_that_keeps_sending():
    async def main():
        async with admin_edge() as (_, port):
            answer = await exchange(port, b"x" * (1 << 20) + b"\r\n", b"y" * (1 << 20))
            assert status_of(answer) in (400, 414)

    run(main)


def test_random_bytes_disturb_nobody():
    async def main():
        rng = random.Random(3)
        async with admin_edge() as (admin, port):
            rubbish = [rng.randbytes(rng.randrange(1, 3000)) for _ in range(40)]
            await asyncio.gather(*(exchange(port, data, eof=True) for data in rubbish))
            assert status_of(await exchange(port, GET)) == 200
            await until(lambda: not admin._http._live)

    run(main)


def test_a_slow_request_is_ended_by_the_clock():
    async def main():
        async with admin_edge(limits=HttpLimits(timeout_sec=0.05)) as (admin, port):
            assert status_of(await exchange(port, b"GET / HT")) == 408
            assert status_of(await exchange(port)) == 408  # not one byte
            await until(lambda: not admin._http._live)

    run(main)


def test_a_client_that_never_closes_is_cut():
    async def main():
        async with admin_edge(limits=HttpLimits(timeout_sec=0.2)) as (admin, port):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.send(GET)
                await until(lambda: admin._http._live)
                await until(lambda: not admin._http._live)

    run(main)


def test_connections_are_capped_and_closed_with_the_edge():
    async def main():
        async with admin_edge(limits=HttpLimits(max_connections=3)) as (admin, port):
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            await until(lambda: len(admin._http._live) == 3)
            assert b" 200 OK" in await exchange(port, GET)
            assert await idle[0][0].read() == b""  # the oldest has made room
            await until(lambda: len(admin._http._live) == 2)
            admin.close()
            await until(lambda: not admin._http._live)
            for reader, writer in idle:
                with suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()

    run(main)


def test_a_client_that_has_gone_while_its_answer_was_made_is_no_defect():
    """Prometheus does not wait longer than it was told to. The loop has not said so yet, the kernel resets at the first
    byte of the answer, and says so at its end."""

    async def main():
        made: list[asyncio.Transport] = []

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport)

        net = Net(asyncio.get_running_loop())
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.create_connection(listening.getsockname())
            sock, _ = listening.accept()
        sock.setblocking(False)
        net.adopt(sock, Server())
        await until(lambda: made)
        client.close()
        answer(made[0], Response.text(200, "late"), net.call_later).cancel()
        assert made[0].is_closing()
        await net.cancel_all()

    run(main)


def test_a_failing_handler_answers_500_and_leaves_a_trace():
    async def main():
        hub = FakeHub()
        hub.totals = lambda: 1 / 0
        async with admin_edge(hub) as (_, port):
            assert status_of(await exchange(port, b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 500
            assert status_of(await exchange(port, GET)) == 200

    stream = io.StringIO()
    assert log.flush(PATIENCE)  # what earlier tests have said
    log.setup(stream=stream, format="json")
    try:
        run(main)
        assert log.flush(10)
    finally:
        log.setup()
    (event,) = map(orjson.loads, stream.getvalue().splitlines())
    assert (event["event"], event["error"]) == ("http_handler_failed", "ZeroDivisionError")


class Slow(FakeHub):
    """Its totals take slices without end until it is `open`."""

    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.open = False
        self.begun = self.under_way = self.most = 0

    def totals(self):
        self.begun += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            while not self.open:
                yield
            return (yield from super().totals())
        finally:
            self.under_way -= 1


LONG = ("/metrics", "/status", "/", "/?refresh=off")


def waiting(admin):
    """Clients that wait for a long answer."""
    return sum(one._making is not None for one in admin._http._live)


def asking(path, method="GET"):
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@pytest.mark.parametrize("path", LONG)
def test_others_are_answered_while_a_long_answer_is_made(path):
    async def main():
        hub = Slow(agents=5000, peers=2)
        async with admin_edge(hub) as (_, port):
            long = asyncio.create_task(exchange(port, asking(path)))
            await until(lambda: hub.begun)
            for _ in range(3):
                assert status_of(await exchange(port, GET)) == 200
            assert not long.done()
            hub.open = True
            head, _, body = (await long).partition(b"\r\n\r\n")
            assert status_of(head) == 200 and f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n"

    run(main)


def test_one_long_answer_at_a_time_and_those_who_ask_meanwhile_share_the_next():
    async def main():
        hub = Slow()
        async with admin_edge(hub) as (admin, port):
            first = asyncio.create_task(exchange(port, asking("/metrics")))
            await until(lambda: hub.begun)
            others = [asyncio.create_task(exchange(port, asking(path))) for path in LONG for _ in range(8)]
            await until(lambda: waiting(admin) == 1 + len(others))
            hub.open = True
            assert {status_of(answer) for answer in await asyncio.gather(first, *others)} == {200}
            assert hub.most == 1 and hub.begun <= 1 + 2 * len(LONG)

    run(main)


def test_a_long_answer_reaches_a_client_that_has_closed_its_side():
    async def main():
        hub = Slow()
        async with admin_edge(hub) as (admin, port):
            long = asyncio.create_task(exchange(port, asking("/metrics"), eof=True))
            await until(lambda: any(one._ended for one in admin._http._live))
            hub.open = True
            assert status_of(await long) == 200
            await until(lambda: not admin._http._live)

    run(main)


def test_a_client_that_goes_away_takes_the_answer_from_nobody():
    async def main():
        hub = Slow()
        async with admin_edge(hub) as (admin, port):
            _, gone = await asyncio.open_connection("127.0.0.1", port)
            reset = struct.pack("ii", 1, 0)
            gone.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            gone.write(asking("/status"))
            await until(lambda: hub.begun)
            others = [asyncio.create_task(exchange(port, asking("/status"))) for _ in range(2)]
            await until(lambda: waiting(admin) == 3)
            gone.transport.abort()
            await until(lambda: waiting(admin) == 2)
            hub.open = True
            assert [status_of(answer) for answer in await asyncio.gather(*others)] == [200, 200]

    run(main)


def test_the_edge_closes_while_a_long_answer_is_made():
    async def main():
        hub = Slow()
        async with admin_edge(hub) as (admin, port):
            long = [asyncio.create_task(exchange(port, asking(path))) for path in LONG]
            await until(lambda: waiting(admin) == len(LONG))
        assert await asyncio.gather(*long) == [b""] * len(LONG)
        assert not hub.under_way
        await until(lambda: not admin._http._live)

    run(main)


EVENT = re.compile(rb"data: (.+)\n\n")


async def follow(port, path="/live"):
    """The head of a stream, and what reads its next event."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(asking(path))
    head = await reader.readuntil(b"\r\n\r\n")

    async def event():
        async with asyncio.timeout(PATIENCE):
            return json.loads(EVENT.fullmatch(await reader.readuntil(b"\n\n"))[1])

    return head, event, writer


def test_the_page_is_followed(monkeypatch):
    monkeypatch.setattr(page, "PERIOD", 0.0)

    async def main():
        hub = FakeHub(agents=3)
        async with admin_edge(hub) as (admin, port):
            head, event, writer = await follow(port, "/live?filter=canary-2")
            assert status_of(head) == 200 and b"Content-Type: text/event-stream\r\n" in head
            assert b"Content-Length" not in head
            shown = await event()
            assert "agent-canary-2" in shown and "agent-canary-1" not in shown
            hub.rows[2]["agent_id"] = "canary-2-b"
            async with asyncio.timeout(PATIENCE):
                while "canary-2-b" not in await event():
                    pass
            writer.close()
            await until(lambda: not admin._http._live)
            head = await exchange(port, asking("/live", "HEAD"))
            assert status_of(head) == 200 and head.endswith(b"\r\n\r\n")

    run(main)


@pytest.mark.parametrize("header", ["Origin: http://a.example", "Sec-Fetch-Site: cross-site"])
def test_no_other_page_holds_a_readers_place(header):
    async def main():
        async with admin_edge() as (_, port):
            request = f"GET /live HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode()
            assert status_of(await exchange(port, request)) == 403

    run(main)


def test_an_event_is_one_line_whatever_an_agent_is_called():
    async def main():
        hub = FakeHub()
        hub.rows[0]["agent_id"] = 'a\r\n\r\ndata: "b"\u2028\ud800'
        async with admin_edge(hub) as (_, port):
            _, event, writer = await follow(port)
            assert "data: &quot;b&quot;" in await event()
            writer.close()

    run(main)


def test_so_many_follow_the_page_and_no_more(monkeypatch):
    monkeypatch.setattr(page, "READERS", 2)

    async def main():
        async with admin_edge() as (admin, port):
            readers = [await follow(port) for _ in range(2)]
            for _, event, _ in readers:
                await event()
            assert status_of(await exchange(port, asking("/live"))) == 503
            readers[0][2].close()
            await until(lambda: len(admin._http._live) == 1)
            head, event, writer = await follow(port)
            assert status_of(head) == 200
            for one in (readers[1][2], writer):
                one.close()

    run(main)


def test_who_follows_and_does_not_read_is_let_go(monkeypatch):
    monkeypatch.setattr(page, "PERIOD", 0.0)
    monkeypatch.setattr(page, "PATIENCE", 0.01)

    async def main():
        async with admin_edge(FakeHub(agents=200)) as (admin, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            writer.write(asking("/live"))
            await until(lambda: admin._http._live)
            await until(lambda: not admin._http._live)
            writer.close()

    run(main)


def test_the_watchdog_names_what_blocks_the_loop(monkeypatch):
    monkeypatch.setattr(watchdog, "QUIET", 0.0)  # a busy machine may stall the loop before the test does
    stream = io.StringIO()
    log.setup(stream=stream, format="json")
    stats = Stats()

    def blocks_the_loop():
        end = time.monotonic() + PATIENCE  # the watcher needs about 0.3 s; leave as soon as it has spoken
        while time.monotonic() < end and "blocks_the_loop" not in stream.getvalue():
            time.sleep(0.02)

    async def main():
        dog = watchdog.Watchdog(asyncio.get_running_loop(), stats)
        dog.start()
        await until(lambda: stats.loop_lag.counts != [0] * len(stats.loop_lag.counts))
        blocks_the_loop()
        gc.collect()
        samples = sum(stats.loop_lag.counts)
        await until(lambda: sum(stats.loop_lag.counts) > samples)
        dog.stop()
        assert dog._on_gc not in gc.callbacks and not dog._thread.is_alive()

    try:
        run(main)
        assert log.flush(10)
    finally:
        log.setup()
    event = next(orjson.loads(line) for line in stream.getvalue().splitlines() if "blocks_the_loop" in line)
    assert event["event"] == "loop_stuck" and event["lag_ms"] >= 100
    assert any(place.endswith("blocks_the_loop") for place in event["trace"])
    assert sum(stats.gc_pause.counts) >= 1
    assert sum(stats.loop_lag.counts[-3:]) >= 1  # a lag above 0.1 s was seen


def test_what_the_start_does_until_the_loop_turns_is_no_lag(monkeypatch):
    """The loop stands while the last of the start runs, our own `freeze` in it: no news, and no sample."""
    monkeypatch.setattr(watchdog, "STUCK", 0.0)
    stream = io.StringIO()
    log.setup(stream=stream, format="json")
    stats = Stats()

    async def main():
        loop = asyncio.get_running_loop()
        dog = watchdog.Watchdog(loop, stats)
        dog.start()
        looked = threading.Event()
        was = dog._stop.wait
        looks = iter(range(3))

        def wait(period):
            if next(looks, None) is None:
                looked.set()
                return was()
            return was(period)

        dog._stop.wait = wait
        assert looked.wait(PATIENCE), "the watcher looks"
        assert sum(stats.loop_lag.counts) == 0
        dog.stop()

    try:
        run(main)
        assert log.flush(10)
    finally:
        log.setup()
    assert "loop_stuck" not in stream.getvalue()


def test_freeze_takes_what_exists_out_of_the_collector():
    thresholds = gc.get_threshold()
    try:
        watchdog.freeze()
        assert gc.get_freeze_count() > 1000
        young, middle, _ = gc.get_threshold()
        assert young <= 2_000, "a look at the young ones is a pause for every flow"
        assert young * middle >= 1_000_000, "those who live long are looked at too often"
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


class OneLock:
    """What the admin edge asks to lock agents out; `said` is what came."""

    def __init__(self) -> None:
        self.said: list[tuple] = []

    def kick(self, *asked) -> Lock:
        self.said.append(asked)
        if asked[0] == "nobody":
            raise LockRefused("not so")
        return Lock(f"{asked[1] or ''}/{asked[0]}", 1_800_000_000, 1, asked[3], lifted=not asked[2])

    def unlock(self, *asked) -> Lock:
        return self.kick(*asked, 0, "")

    def knows(self, key: str) -> bool:
        return key == "/a"


@pytest.mark.parametrize(
    ("question", "status", "said"),
    [
        ("kick?agent=a", 202, ("a", None, 3600, "")),
        ("kick?agent=a&tenant=t&for=90&reason=lost+it", 202, ("a", "t", 90, "lost it")),
        ("kick?agent=a&for=0", 202, ("a", None, 0, "")),
        ("unlock?agent=a&tenant=t", 202, ("a", "t", 0, "")),
        ("kick?agent=nobody", 409, ("nobody", None, 3600, "")),
        ("kick", 400, None),
        ("unlock", 400, None),
        ("kick?agent=a&for=soon", 400, None),
        ("kick?agent=a&for=-1", 400, None),
        ("kick?agent=a&for=nan", 400, None),
        ("kick?agent=a&reason=%1b%5b2J", 400, None),
        ("kick?agent=a&reason=" + "x" * 201, 400, None),
    ],
)
def test_agents_are_locked_out_by_post(question, status, said):
    async def main():
        hub = FakeHub()
        hub.lockout = OneLock()
        async with admin_edge(hub) as (_, port):
            got, _, body = await asyncio.to_thread(fetch, port, f"/agents/{question}", "POST")
            assert got == status and hub.lockout.said == ([said] if said else [])
            if status == 202:
                agent, tenant, seconds, _ = said
                name = f"{tenant}/{agent}" if tenant else agent
                assert json.loads(body) == {
                    "agent": name,
                    "until": 1_800_000_000,
                    "locked": bool(seconds),
                    "known": name == "a",
                }
            assert (await asyncio.to_thread(fetch, port, f"/agents/{question}"))[0] == 405

    run(main)
