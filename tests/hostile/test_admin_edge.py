"""The admin edge against web pages, neighbours and guesses: who reads, and who changes anything."""

from __future__ import annotations

import asyncio
import io
import os
import ssl
import stat
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
import uvloop
from support.fake_hub import FakeHub
from support.until import PATIENCE, until

from ncfast.config.hub import Admin as AdminConfig
from ncfast.hub.admin import Admin
from ncfast.net.request import HttpLimits
from ncfast.net.seam import Net
from ncfast.observe import adminclient, log

TOKEN = "0123456789abcdef0123456789abcdef"


def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


@asynccontextmanager
async def edge(limits: HttpLimits = HttpLimits(), **config):
    """An admin edge of a hub that counts how often it was drained."""
    net = Net(asyncio.get_running_loop())
    hub = FakeHub()
    admin = Admin(hub, net, limits)
    await admin.start(AdminConfig.model_validate({"bind": "127.0.0.1:0"} | config))
    try:
        yield hub, admin, int(admin.address.rpartition(":")[2])
    finally:
        admin.close()
        await net.cancel_all()


async def ask(where: int | Path, request: str, *headers: str, host: str | None = "localhost") -> int:
    """The status that a request is answered with."""
    if isinstance(where, Path):
        reader, writer = await asyncio.open_unix_connection(where)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", where)
    lines = [f"{request} HTTP/1.1", *([f"Host: {host}"] if host is not None else []), *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
def token_file(tmp_path) -> Path:
    path = tmp_path / "admin.token"
    path.write_text(TOKEN + "\n")
    return path


FOREIGN = [
    "evil.example",
    "evil.example:9400",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "",
    "[::1",
    "lo calhost",
]
OURS = [
    "localhost",
    "LOCALHOST:9400",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1:1",
    "[::1]:9400",
    "10.0.0.7",
    "hub.corp:9400",
]


@pytest.mark.parametrize("host", FOREIGN)
def test_a_page_whose_name_was_rebound_reads_nothing(host):
    async def main():
        async with edge(hosts=["hub.corp"]) as (hub, _, port):
            for path in ("/status", "/metrics", "/", "/readyz", "/nowhere"):
                assert await ask(port, f"GET {path}", host=host) == 421
            assert await ask(port, "POST /drain", host=host) == 421
            assert hub.drains == 0

    run(main)


def test_a_bind_at_every_interface_is_no_name():
    async def main():
        async with edge(bind=":0") as (_, _, port):
            assert await ask(port, "GET /status", host="") == 421

    run(main)


@pytest.mark.parametrize("host", OURS)
def test_whoever_names_the_hub_reads(host):
    async def main():
        async with edge(hosts=["hub.corp"]) as (_, _, port):
            assert await ask(port, "GET /status", host=host) == 200

    run(main)


def test_without_socket_and_token_loopback_changes_and_a_page_does_not():
    async def main():
        async with edge() as (hub, _, port):
            assert await ask(port, "POST /drain", "Origin: http://localhost") == 403
            assert await ask(port, "POST /drain", "Origin: null") == 403
            assert hub.drains == 0
            assert await ask(port, "POST /drain") == 202
            assert hub.drains == 1

    run(main)


@pytest.mark.parametrize("bind", ["0.0.0.0:0", ":0"])
def test_beyond_loopback_nobody_changes_anything(bind):
    async def main():
        async with edge(bind=bind) as (hub, _, port):
            for path in ("/drain", "/agents/move?agent=a", "/agents/kick?agent=a", "/agents/unlock?agent=a"):
                assert await ask(port, f"POST {path}") == 403
            assert await ask(port, "GET /status") == 200
            assert hub.drains == 0

    run(main)


def test_a_bind_beyond_loopback_is_warned_of_at_the_start():
    lines = io.StringIO()

    async def main():
        async with edge(bind="0.0.0.0:0"):
            pass
        async with edge():
            pass

    assert log.flush(PATIENCE)  # what earlier tests have said
    log.setup("info", "json", "none", stream=lines)
    try:
        run(main)
        assert log.flush(PATIENCE)
    finally:
        log.setup("info", "json", "none")
    assert lines.getvalue().count("admin_exposed") == 1


CREDENTIALS = [
    (),
    ("Authorization: Bearer",),
    ("Authorization: Bearer ",),
    (f"Authorization: Bearer {TOKEN[:-1]}",),
    (f"Authorization: Bearer {TOKEN}0",),
    (f"Authorization: Basic {TOKEN}",),
    (f"Authorization: {TOKEN}",),
    ("Authorization: Bearer \xe9" + TOKEN[1:],),
    (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer x"),
    (f"Cookie: token={TOKEN}",),
]


@pytest.mark.parametrize("credentials", CREDENTIALS, ids=range(len(CREDENTIALS)))
def test_a_change_without_the_token_is_refused(token_file, credentials):
    async def main():
        async with edge(token_file=str(token_file)) as (hub, _, port):
            assert await ask(port, "POST /drain", *credentials) in (400, 401)
            assert await ask(port, f"POST /drain?token={TOKEN}", *credentials) in (400, 401)
            assert hub.drains == 0
            assert await ask(port, "GET /status") == 200

    run(main)


def test_the_token_lets_change_from_anywhere_but_a_page(token_file):
    async def main():
        async with edge(token_file=str(token_file), bind="0.0.0.0:0") as (hub, _, port):
            shown = f"Authorization: Bearer {TOKEN}"
            assert await ask(port, "POST /drain", shown, "Origin: http://localhost") == 403
            assert hub.drains == 0
            assert await ask(port, "POST /drain", shown) == 202

    run(main)


def test_a_new_token_counts_and_the_old_one_does_not(token_file):
    async def main():
        async with edge(token_file=str(token_file)) as (hub, _, port):
            fresh = token_file.with_suffix(".new")
            fresh.write_text("f" * 32)
            fresh.rename(token_file)
            assert await ask(port, "POST /drain", f"Authorization: Bearer {TOKEN}") == 401
            assert await ask(port, "POST /drain", f"Authorization: Bearer {'f' * 32}") == 202
            token_file.write_text("")  # of no use: the last one stays, and not none
            assert await ask(port, "POST /drain", "Authorization: Bearer ") == 401
            assert await ask(port, "POST /drain", f"Authorization: Bearer {'f' * 32}") == 202
            assert hub.drains == 2

    run(main)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 5000])
def test_a_token_that_could_be_guessed_is_none(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)

    async def main():
        with pytest.raises(OSError, match="admin.token_file"):
            async with edge(token_file=str(path)):
                pass

    run(main)


def test_the_socket_is_this_users_alone_and_takes_changes_that_the_port_does_not(tmp_path):
    path = tmp_path / "admin.sock"

    async def main():
        async with edge(unix=str(path)) as (hub, _, port):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            assert await ask(port, "POST /drain") == 403
            assert await ask(port, "GET /status") == 200
            assert await ask(path, "POST /drain", "Origin: http://localhost") == 403
            assert hub.drains == 0
            assert await ask(path, "POST /drain") == 202
            at = adminclient.Place(f"unix:{path}")
            assert (await asyncio.to_thread(adminclient.status, at))["role"] == "hub"
            assert (await asyncio.to_thread(adminclient.ask, at, "/drain", "POST"))["state"] == "draining"
            assert hub.drains == 2
        assert not path.exists()

    run(main)


def test_the_client_shows_the_token_and_says_why_it_was_refused(token_file):
    async def main():
        async with edge(token_file=str(token_file)) as (hub, _, port):
            url = f"http://127.0.0.1:{port}"
            with pytest.raises(adminclient.Refused, match="--token-file"):
                await asyncio.to_thread(adminclient.ask, url, "/drain", "POST")
            await asyncio.to_thread(adminclient.ask, adminclient.Place(url, token_file), "/drain", "POST")
            assert hub.drains == 1

    run(main)


# TLS


@pytest.fixture
def tls(tmp_path) -> dict[str, str]:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}


def test_over_tls_the_client_reads_and_plain_text_does_not(tls, tmp_path):
    async def main():
        async with edge(tls=tls) as (_, _, port):
            context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
            at = adminclient.Place(f"https://localhost:{port}", tls=context)
            assert (await asyncio.to_thread(adminclient.status, at))["role"] == "hub"
            with pytest.raises(adminclient.Unavailable):
                await asyncio.to_thread(adminclient.status, adminclient.Place(f"https://localhost:{port}"))
            with pytest.raises(adminclient.Unavailable):
                await asyncio.to_thread(adminclient.status, f"http://localhost:{port}")

    run(main)


def test_silent_connections_before_tls_count_and_make_room(tls, tmp_path):
    """They are counted at accept: with four places the fifth ends the first, and no more than four are ever held."""

    async def main():
        async with edge(HttpLimits(max_connections=4), tls=tls) as (_, admin, port):
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
            for reader, _ in silent[:8]:
                async with asyncio.timeout(PATIENCE):
                    with pytest.raises((ConnectionError, EOFError)):
                        await reader.readexactly(1)
            assert len(list(admin._http._live)) == 4
            for _, writer in silent:
                writer.transport.abort()
            await until(lambda: not list(admin._http._live), "all have left")

    run(main)


def test_a_tls_handshake_that_never_ends_is_ended(tls):
    async def main():
        async with edge(HttpLimits(timeout_sec=0.2), tls=tls) as (_, admin, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
            assert not list(admin._http._live)
            writer.close()

    run(main)
