"""The HTTP edge on real sockets: who gets a tunnel, what the others are told, and what bounds them."""

from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from support.raw_tunnel import upgrade_request
from support.tokens import genuine

from hub import doors as d
from hub.rooms import identity
from ncfast.auth.certificate import confirmation
from ncfast.config.hub import ServerTls
from ncfast.net.throttle import Throttle
from ncfast.observe.readiness import State

TOKEN = genuine("HS256", sub="site")


def play(tmp_path, scene, mode="off", **sections):
    async def main():
        async with d.doors(tmp_path, mode, **sections) as hub:
            await hub.edge.open()
            await scene(hub)

    d.run(main)


async def answer(hub: d.Doors, request: bytes) -> tuple[int, str]:
    """Status and head."""
    head = (await d.exchange(hub.edge.address, request)).decode("latin-1")
    return int(head.split(" ", 2)[1]) if head else 0, head


async def tunnel(hub: d.Doors, token: str = TOKEN, local: str = "127.0.0.1", **request):
    """Until the hub has answered; the head, and the connection."""
    reader, writer = await d.dial(hub.edge.address, local_addr=(local, 0))
    writer.write(upgrade_request(token, **request))
    return await reader.readuntil(b"\r\n\r\n"), reader, writer


def issued(folder: Path, authority: trustme.CA, name: str) -> ServerTls:
    """A certificate in files."""
    of = authority.issue_cert(name)
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    of.private_key_pem.write_to_path(str(key))
    for blob in of.cert_chain_pems:
        blob.write_to_path(str(cert), append=True)
    return ServerTls.model_validate({"cert_file": str(cert), "key_file": str(key)})


# who gets a tunnel


def test_a_genuine_token_gets_a_tunnel(tmp_path):
    async def scene(hub):
        head, _, writer = await tunnel(hub)
        assert head.startswith(b"HTTP/1.1 101 ")
        (session,) = hub.sessions
        assert session.key == "/site" and session.remote == "%s:%d" % writer.get_extra_info("sockname")
        assert hub.ground.stats.tunnels_opened == 1 and not hub.edge.pending
        d.cut(writer)
        await d.until(lambda: not len(hub.sessions), "the tunnel has ended")

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        (upgrade_request(None), 401, "no_token"),
        (upgrade_request(TOKEN, headers=("Authorization: Bearer x",)), 401, "no_token"),
        (upgrade_request(None, headers=(f"Authorization: Basic {TOKEN}",)), 401, "no_token"),
        (upgrade_request(TOKEN, path=f"/tunnel?token={TOKEN}"), 400, "query"),
        (upgrade_request(TOKEN, headers=("Origin: https://example.com",)), 403, "origin"),
        (upgrade_request(TOKEN, headers=("Content-Length: 0",)), 400, "body"),
        (upgrade_request(TOKEN, without=("Sec-WebSocket-Key",)), 400, "websocket"),
        (upgrade_request(TOKEN) + b"\x82", 400, "early_bytes"),
    ],
    ids=["no token", "two tokens", "no bearer", "query", "browser", "body", "no websocket", "smuggled"],
)
def test_who_gets_none(tmp_path, request_, status, reason):
    async def scene(hub):
        assert (await answer(hub, request_))[0] == status
        assert hub.ground.stats.handshakes_refused[reason] == 1 and not len(hub.sessions)

    play(tmp_path, scene)


@pytest.mark.parametrize("why", ["signature", "expired"])
def test_a_token_that_is_refused_is_counted_by_reason(tmp_path, why):
    token = TOKEN[:-8] + "AAAAAAAA" if why == "signature" else genuine("HS256", sub="site", iat=1, exp=2)

    async def scene(hub):
        status, head = await answer(hub, upgrade_request(token))
        assert status == 401 and 'error="invalid_token"' in head and hub.ground.stats.auth_failed == {why: 1}
        told = 'error_description="the token has expired"' if why == "expired" else ""  # to its holder, and nobody else
        assert told in head and ("error_description" in head) == bool(told)

    play(tmp_path, scene)


@pytest.mark.parametrize("why", ["not_serving", "agent_cap"])
def test_a_hub_that_can_take_no_agent_says_when_to_come_again(tmp_path, why):
    async def scene(hub):
        if why == "not_serving":
            hub.ground.readiness.move(State.STOPPED)
        else:
            _, _, writer = await tunnel(hub)
        status, head = await answer(hub, upgrade_request(TOKEN))
        assert status == 503 and "Retry-After: " in head
        assert hub.ground.stats.handshakes_refused == {why: 1}
        if why == "agent_cap":
            d.cut(writer)

    play(tmp_path, scene, limits={"max_agents": 1})


def test_an_agent_that_comes_again_at_once_is_told_to_wait_and_no_other_is(tmp_path):
    """74 tunnels in 12 s, of one that took HELLO_ACK for success."""

    async def scene(hub):
        hub.edge.comers = Throttle(1, lambda: 0.0)  # of which time stands still
        ends = []
        for _ in range(2):
            head, _, writer = await tunnel(hub)
            assert head.startswith(b"HTTP/1.1 101 ")
            ends.append(writer)
        status, head = await answer(hub, upgrade_request(TOKEN))
        assert status == 429 and "Retry-After: 1" in head and hub.ground.stats.handshakes_refused == {"agent_rate": 1}
        head, _, last = await tunnel(hub, genuine("HS256", sub="other"))
        assert head.startswith(b"HTTP/1.1 101 ")
        for writer in (*ends, last):
            d.cut(writer)

    play(tmp_path, scene)


def test_one_token_takes_three_places_and_fewer_when_few_are_left(tmp_path):
    """1,500 standbys in 28 s, and other agents got 503."""

    async def scene(hub):
        writers = []
        for number in range(20):
            head, _, writer = await tunnel(hub)
            assert head.startswith(b"HTTP/1.1 101 ")
            writers.append(writer)
            await d.until(lambda: len(hub.sessions) == min(3, number + 1), "the oldest has gone")
        for number in range(4):
            head, _, writer = await tunnel(hub, genuine("HS256", sub=f"other{number}"))
            assert head.startswith(b"HTTP/1.1 101 ")
            writers.append(writer)
        assert len(hub.sessions) == 7
        head, _, writer = await tunnel(hub)
        writers.append(writer)
        await d.until(lambda: len(hub.sessions) == 6, "it has two")
        for writer in writers:
            d.cut(writer)

    play(tmp_path, scene, limits={"max_agents": 8}, edge={"bind": "127.0.0.1:0", "tunnels_per_agent_per_sec": 0})


def test_behind_an_ingress_those_count_whom_it_names(tmp_path):
    """A whole /64 is one source, whatever zone is written behind an address; another one is another."""

    async def scene(hub):
        hub.edge.throttle = Throttle(1, lambda: 0.0)  # of which time stands still
        for number, name in enumerate(("2001:db8::1", "2001:db8::2%x", "2001:db8::3", "::ffff:192.0.2.1", "192.0.2.1")):
            head, _, writer = await tunnel(hub, headers=(f"X-Forwarded-For: {name}",))
            assert int(head[9:12]) == (429 if number == 2 else 101) and (b"Retry-After: " in head) == (number == 2)
            d.cut(writer)
        assert hub.ground.stats.handshakes_refused == {"rate": 1}

    play(tmp_path, scene, edge={"bind": "127.0.0.1:0", "trusted_proxies": ["127.0.0.0/8"]})


@pytest.mark.parametrize("waits", [True, False], ids=["for whom flows wait", "for whom none wait"])
def test_while_the_hub_drains_an_agent(tmp_path, waits):
    async def scene(hub):
        hub.ground.readiness.move(State.DRAINING)
        hub.claims.awaited = lambda who: waits and who.key == identity("site").key
        head, _, writer = await tunnel(hub)
        assert int(head[9:12]) == (101 if waits else 503)
        d.cut(writer)

    play(tmp_path, scene)


# what an ingress says of the client certificate

NAMED, UNNAMED = f"Hash={'ab' * 32};DNS=site", f"Hash={'ab' * 32};DNS=other"
BOUND = genuine("HS256", sub="site", cnf=confirmation(bytes.fromhex("ab" * 32)))
HTTPS = "X-Forwarded-Proto: https"


@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [
        (TOKEN, (HTTPS, f"X-Forwarded-Client-Cert: {NAMED}"), 101),
        (BOUND, (HTTPS, f"X-Forwarded-Client-Cert: {NAMED}"), 101),
        (BOUND, (HTTPS, f"X-Forwarded-Client-Cert: {NAMED.replace('b;', 'c;')}"), 401),
        (BOUND, (HTTPS, "X-Forwarded-Client-Cert: DNS=site"), 401),  # it does not say which one
        (TOKEN, (HTTPS, f"X-Forwarded-Client-Cert: {UNNAMED}"), 401),
        (TOKEN, (HTTPS, "X-SSL-Client-Verify: NONE"), 401),
        (TOKEN, (HTTPS,), 401),
        (TOKEN, (), 403),
        (TOKEN, (f"X-Forwarded-Client-Cert: {NAMED}",), 403),  # not over TLS
        (TOKEN, (HTTPS, f"X-Forwarded-Client-Cert: {UNNAMED}", f"X-Forwarded-Client-Cert: {NAMED}"), 400),
        (TOKEN, (HTTPS, f"X-Forwarded-Client-Cert: {UNNAMED},{NAMED}"), 400),
        (TOKEN, (HTTPS, "X-Forwarded-Client-Cert: Hash=ab;DNS=site"), 400),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, tuple) else None,
)
@pytest.mark.parametrize("believed", [True, False])
def test_an_ingress_vouches_for_the_certificate_where_it_is_to_be_believed(tmp_path, token, headers, status, believed):
    async def scene(hub):
        await hub.tokens.use(hub.jwt.model_copy(update={"certificate_name": "DNS:{sub}"}), None)
        head, _, writer = await tunnel(hub, token, headers=headers)
        assert int(head.split()[1]) == (status if believed else 401)
        writer.close()

    edge = {"bind": "127.0.0.1:0", "trusted_proxies": ["127.0.0.1/32"], "forwarded_certificates": believed}
    play(tmp_path, scene, edge=edge)


@pytest.mark.parametrize("trusted", ["127.0.0.1/32", "127.0.0.2/32"])
def test_a_stranger_vouches_for_nothing(tmp_path, trusted):
    async def scene(hub):
        head, _, writer = await tunnel(hub, BOUND, headers=(HTTPS, f"X-Forwarded-Client-Cert: {NAMED}"))
        assert int(head.split()[1]) == (101 if trusted == "127.0.0.1/32" else 401)
        writer.close()

    play(
        tmp_path,
        scene,
        edge={"bind": "127.0.0.1:0", "trusted_proxies": [trusted], "forwarded_certificates": True},
    )


# while the token is judged


def slow(hub: d.Doors) -> d.Signal:
    signal = d.Signal()
    verify = hub.tokens.verify

    async def late(*shown):
        signal.asked = True
        await signal.event.wait()
        return await verify(*shown)

    hub.tokens.verify = late
    return signal


def test_bytes_that_come_before_the_answer_are_smuggling(tmp_path):
    async def scene(hub):
        signal = slow(hub)
        reader, writer = await d.dial(hub.edge.address)
        writer.write(upgrade_request(TOKEN))
        await d.until(lambda: signal.asked, "judged")
        writer.write(b"\x82\x80\0\0\0\0")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        signal.event.set()
        writer.close()
        await d.until(lambda: hub.net.sockets == 0, "gone")
        assert hub.ground.stats.handshakes_refused == {"early_bytes": 1} and not hub.ground.stats.tunnels_opened

    play(tmp_path, scene)


def test_a_connection_that_goes_while_its_token_is_judged_gets_no_tunnel(tmp_path):
    async def scene(hub):
        signal = slow(hub)
        _, writer = await d.dial(hub.edge.address)
        writer.write(upgrade_request(TOKEN))
        await d.until(lambda: signal.asked, "judged")
        d.cut(writer)
        await d.until(lambda: hub.net.sockets == 0, "gone")
        signal.event.set()
        await d.until(lambda: not hub.net._tasks, "judged")
        assert not hub.ground.stats.tunnels_opened and not len(hub.sessions)

    play(tmp_path, scene)


# bounds


@pytest.mark.parametrize("sent", [b"", b"GET /tunnel HT"], ids=["nothing", "a part"])
def test_a_handshake_has_its_time(tmp_path, sent):
    async def scene(hub):
        assert (await answer(hub, sent))[0] == 408
        assert hub.ground.stats.handshakes_refused == {"handshake_timeout": 1}
        await d.until(lambda: not hub.edge.pending, "forgotten")

    play(tmp_path, scene, edge={"bind": "127.0.0.1:0", "handshake_timeout_sec": 0.05})


def test_tls_that_comes_about_after_the_deadline_keeps_no_place(tmp_path):
    """512 of these, and nobody got in any more until a restart."""
    authority = trustme.CA()
    client, wire, out = ssl.create_default_context(), ssl.MemoryBIO(), ssl.MemoryBIO()

    async def scene(hub):
        hub.edge.use_tls(hub.edge.load_tls(issued(tmp_path, authority, "hub.example")))
        authority.configure_trust(client)
        reader, writer = await d.dial(hub.edge.address)
        tls = client.wrap_bio(wire, out, server_hostname="hub.example")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        writer.write(out.read())
        flight = await reader.read(65536)  # the hub is waiting for our Finished now
        await d.until(lambda: hub.ground.stats.handshakes_refused == {"handshake_timeout": 1}, "it is late")
        wire.write(flight)
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        writer.write(out.read())
        assert not hub.edge.pending and hub.net.sockets == 0
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass
        writer.close()
        assert (await answer(hub, b"")) == (0, "")

    play(tmp_path, scene, edge={"bind": "127.0.0.1:0", "handshake_timeout_sec": 0.2})


def test_when_there_are_too_many_handshakes_the_oldest_makes_room(tmp_path):
    async def scene(hub):
        first, _ = await d.dial(hub.edge.address)
        await d.until(lambda: len(hub.edge.pending) == 1, "accepted")
        _, writer = await d.dial(hub.edge.address)
        await d.until(lambda: len(hub.edge.pending) == 2, "accepted")
        assert (await answer(hub, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"))[0] == 200
        assert hub.ground.stats.handshakes_refused == {"too_many_handshakes": 1}
        with suppress(ConnectionResetError):
            assert await first.read() == b""
        d.cut(writer)
        await d.until(lambda: not hub.edge.pending and not hub.net.sockets, "gone")

    play(tmp_path, scene, edge={"bind": "127.0.0.1:0", "max_pending_handshakes": 2})


@pytest.mark.parametrize("other", ["127.0.0.2", "an ingress"])
def test_who_floods_shuts_out_nobody_else(tmp_path, other):
    """Silent connections from one address; agents and health checks from others get in all the time."""
    edge = {"bind": "127.0.0.1:0", "max_pending_handshakes": 8, "handshakes_per_source_per_sec": 0}

    async def scene(hub):
        slow, writer = await d.dial(hub.edge.address, local_addr=("127.0.0.2", 0))
        await d.until(lambda: len(hub.edge.pending) == 1, "accepted")
        silent = [await d.dial(hub.edge.address) for _ in range(40)]
        await d.until(lambda: hub.ground.stats.handshakes_refused["too_many_handshakes"] == 33, "made room")
        writer.write(upgrade_request(TOKEN))
        assert (await slow.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        for _, one in [(slow, writer), *silent]:
            d.cut(one)

    if other == "an ingress":
        edge["trusted_proxies"] = ["127.0.0.2/32"]
    play(tmp_path, scene, edge=edge)


def test_too_many_requests_of_one_address_get_429_and_health_checks_from_there_an_answer(tmp_path):
    """A NAT, or kube-proxy's own, has all agents and the balancer's checks come from one address."""

    async def scene(hub):
        hub.edge.throttle = Throttle(1, lambda: 0.0)  # of which time stands still
        asked = (upgrade_request(None), b"GET /? HTTP/1.1\r\nHost: h\r\n\r\n") * 2
        assert [(await answer(hub, request))[0] for request in asked] == [401, 404, 429, 429]
        for path in ("/healthz", "/readyz") * 10:
            assert (await answer(hub, f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()))[0] == 200
        _, _, writer = await tunnel(hub, local="127.0.0.2")
        d.cut(writer)

    play(tmp_path, scene)


def test_with_tls_too_many_connects_from_one_address_are_closed_before_the_handshake(tmp_path):
    async def scene(hub):
        hub.edge.throttle = Throttle(1, lambda: 0.0)
        hub.edge.use_tls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        silent = [await d.dial(hub.edge.address) for _ in range(2)]
        with suppress(ConnectionError):
            assert await d.exchange(hub.edge.address, b"") == b""
        assert hub.ground.stats.handshakes_refused == {"rate": 1}
        for _, writer in silent:
            d.cut(writer)

    play(tmp_path, scene)


def test_a_closed_edge_accepts_nobody_and_ends_handshakes_but_no_tunnels(tmp_path):
    async def scene(hub):
        _, _, standing = await tunnel(hub)
        reader, writer = await d.dial(hub.edge.address)
        await d.until(lambda: hub.edge.pending, "accepted")
        hub.edge.close()
        with pytest.raises(ConnectionError):
            await d.dial(hub.edge.address)
        assert await reader.read() == b"" and len(hub.sessions) == 1
        writer.close()
        d.cut(standing)

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("trusted", "forwarded", "remote"),
    [
        ([], "192.0.2.1", "127.0.0.1:"),
        (["127.0.0.0/8"], "192.0.2.1", "192.0.2.1"),
        (["127.0.0.0/8"], "192.0.2.66, 192.0.2.1", "192.0.2.1"),
        (["127.0.0.0/8", "192.0.2.0/24"], "198.51.100.7, 192.0.2.1", "198.51.100.7"),
        (["127.0.0.0/8"], "nonsense", "127.0.0.1:"),
        (["127.0.0.0/8"], "2001:db8::1%<7", "2001:db8::1"),
    ],
    ids=["nobody is trusted", "the ingress is", "from the right", "two proxies", "no address", "with a zone"],
)
def test_whom_a_forwarded_header_names(tmp_path, trusted, forwarded, remote):
    async def scene(hub):
        _, _, writer = await tunnel(hub, headers=(f"X-Forwarded-For: {forwarded}",))
        (session,) = hub.sessions
        assert session.remote.startswith(remote) if remote.endswith(":") else session.remote == remote
        d.cut(writer)

    play(tmp_path, scene, edge={"bind": "127.0.0.1:0", "trusted_proxies": trusted})


# what else is there


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/metrics", "/mesh"])
def test_probes_are_answered_and_nothing_else_is_there(tmp_path, method, path):
    async def scene(hub):
        status, head = await answer(hub, f"{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert status == (200 if path.endswith("z") and method != "POST" else 404)
        assert head.endswith("\r\n\r\n") == (method == "HEAD"), "an answer to HEAD has no body"

    play(tmp_path, scene)


def test_a_hub_that_drains_is_not_ready_and_is_well(tmp_path):
    async def scene(hub):
        hub.ground.readiness.move(State.DRAINING)
        assert (await answer(hub, b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n"))[0] == 503
        assert (await answer(hub, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"))[0] == 200

    play(tmp_path, scene)


def test_with_a_mesh_its_door_is_here_too(tmp_path):
    async def scene(hub):
        await hub.cluster.follow_mode()
        status, _ = await answer(hub, upgrade_request(None, path="/mesh"))
        assert status == 101  # it will have to prove the secret
        browser = upgrade_request(None, path="/mesh", headers=("Origin: https://evil.example",))
        assert (await answer(hub, browser))[0] == 403 and hub.ground.stats.mesh_refused["origin"] == 1
        assert (await answer(hub, upgrade_request(None, path="/mesh?x")))[0] == 404

    play(tmp_path, scene, "shadow")


# TLS


def test_when_the_certificate_in_force_ends_is_known(tmp_path):
    authority = trustme.CA()

    async def scene(hub):
        def end(days: int) -> float:
            """Puts another certificate in the files; when it ends."""
            ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
            of = authority.issue_cert("hub.example", not_after=ends)
            (tmp_path / "hub.pem").write_bytes(of.private_key_and_cert_chain_pem.bytes())
            return ends.timestamp()

        first = end(10)
        tls = ServerTls(cert_file=tmp_path / "hub.pem", key_file=tmp_path / "hub.pem")
        edge = hub.ground.config.edge.model_copy(update={"tls": tls})
        hub.ground.config = hub.ground.config.model_copy(update={"edge": edge})
        hub.edge.use_tls(hub.edge.load_tls(tls))
        assert hub.ground.certificates == {"edge": first}
        second = end(90)
        assert hub.ground.certificates == {"edge": first}  # it was not read again yet
        hub.edge.use_tls(hub.edge.load_tls(tls))
        assert hub.ground.certificates == {"edge": second}
        hub.ground.config = hub.ground.config.model_copy(update={"edge": edge.model_copy(update={"tls": None})})
        hub.edge.use_tls(None)
        assert hub.ground.certificates == {}

    play(tmp_path, scene)


def test_tls_with_a_certificate_that_can_be_replaced(tmp_path):
    authority = trustme.CA()

    async def scene(hub):
        async def shake(name: str) -> None:
            client = ssl.create_default_context()
            authority.configure_trust(client)
            reader, writer = await d.dial(hub.edge.address, ssl=client, server_hostname=name)
            writer.write(upgrade_request(TOKEN))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            writer.transport.abort()

        hub.edge.use_tls(hub.edge.load_tls(issued(tmp_path, authority, "one.example")))
        await shake("one.example")
        assert await d.exchange(hub.edge.address, b"GET /healthz HTTP/1.1\r\n\r\n") == b""
        await d.until(lambda: hub.ground.stats.handshakes_refused == {"tls": 1}, "refused")
        with pytest.raises(OSError):
            hub.edge.load_tls(ServerTls.model_construct(cert_file=tmp_path / "no", key_file=tmp_path / "no"))
        await shake("one.example")
        hub.edge.use_tls(hub.edge.load_tls(issued(tmp_path, authority, "two.example")))
        await shake("two.example")

    play(tmp_path, scene)
