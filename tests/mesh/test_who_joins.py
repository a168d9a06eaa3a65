"""Whoever is no peer does not join: certificates, headers of an ingress, secrets, addresses, silence. On real
sockets."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import socket
import ssl
import struct
from types import SimpleNamespace

import pytest
from support.until import until
from websockets.datastructures import Headers
from websockets.http11 import Request

from mesh.authority import CLIENT, SERVER, Authority, uri
from mesh.hubs import Hub, hubs, linked, run, secret_file
from mesh.wires import Wire
from ncfast._frames import FrameType, encode
from ncfast.core.errors import Reason
from ncfast.mesh import accept, certificates, door, keyring, manager
from ncfast.mesh.handshake import Auth, Hello, HelloAck, proof
from ncfast.net import peercred
from ncfast.observe import log


def frame(kind: FrameType, body: bytes) -> bytes:
    return struct.pack(">BBHI", kind, 0, 0, len(body)) + bytes(48) + body


def hello(name: str = "hub-z", nonce: str = "11" * 32, *, to: Hub | None = None) -> Hello:
    """As one says it who has connected to this hub, straight and without TLS."""
    place = "" if to is None else f"127.0.0.1:{to.port}"
    return Hello(version=1, cluster="ncfast", replica_id=name, instance="22" * 8, nonce=nonce, place=place)


class Stranger:
    """A raw connection that says what the test wants, over TLS if it has a context."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._context = context

    async def __aenter__(self) -> Stranger:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.writer.close()

    async def frame(self) -> tuple[int, int, bytes]:
        """(type, code, payload) of the next frame that is not a ping."""
        while True:
            head = await self.reader.readexactly(56)
            kind, _, code, length = struct.unpack(">BBHI", head[:8])
            body = await self.reader.readexactly(length)
            if kind != FrameType.PING:
                return kind, code, body

    async def end(self) -> bytes:
        """What comes until the connection ends."""
        try:
            return await self.reader.read()
        except (ConnectionError, ssl.SSLError):
            return b""


# certificates


def wrong(authority: Authority, other: Authority) -> dict[str, dict]:
    """What a would-be hub-b shows that is not hub-b's."""
    return {
        "another authority": other.tls(uri("hub-b")) | {"ca_bundle": str(authority.bundle)},
        "no SAN": authority.tls(),
        "another replica's": authority.tls(uri("hub-c"), "DNS:hub-c"),
        "common name only": authority.tls(common_name="hub-b"),
        "wildcard": authority.tls("DNS:*", "DNS:hub-*", "URI:ncfast://ncfast/replica/*"),
        "expired": authority.tls(uri("hub-b"), expired=True),
        "for servers only": authority.tls(uri("hub-b"), usage=(SERVER,)),
        "for clients only": authority.tls(uri("hub-b"), usage=(CLIENT,)),
        "another cluster's": authority.tls(uri("hub-b", "other")),
    }


@pytest.fixture
def unchecked(monkeypatch):
    """Lets a hub start with a certificate that does not name it, as a stranger's program would."""
    monkeypatch.setattr(certificates.Certificates, "_check_own", staticmethod(lambda path, cluster, replica_id: None))


def test_no_wrong_certificate_joins_as_dialler_or_as_listener(tmp_path, unchecked):
    async def main():
        authority, other = Authority(tmp_path), Authority(tmp_path, "other")
        a = Hub("hub-a", {"require_mtls": True, "tls": authority.tls(uri("hub-a"))})
        async with hubs(a):
            joined = 0
            for what, tls in wrong(authority, other).items():
                b = Hub("hub-b", {"require_mtls": True, "tls": tls})
                async with hubs(b):
                    if what != "for clients only":  # that is what a dialler is
                        before = sum(a.refused().values())
                        b.dial(f"tls://127.0.0.1:{a.port}")
                        await until(
                            lambda before=before: sum(a.refused().values()) > before, f"{what}: the dialler is refused"
                        )
                        b.dial()
                    if what != "for servers only":
                        a.dial(f"tls://127.0.0.1:{b.port}")
                        (route,) = a.mesh.routes.values()
                        await until(
                            lambda route=route: route.last_error in ("certificate", "identity"),
                            f"{what}: the listener is refused",
                        )
                        a.dial()
                    joined += bool(a.events or b.events)
            assert joined == 0 and not a.mesh.peers
            known = {"certificate", "identity", "tls"}  # the last one when b.dial() ends a redial within its handshake
            assert set(a.refused()) <= known and a.refused()["certificate"] >= 3
            good = Hub("hub-b", {"require_mtls": True, "tls": authority.tls(uri("hub-b"))})
            async with hubs(good):
                good.dial(f"tls://127.0.0.1:{a.port}")
                await linked(a, good)

    run(main)


def test_without_a_certificate_nobody_joins(tmp_path):
    async def main():
        authority = Authority(tmp_path)
        a = Hub("hub-a", {"require_mtls": True, "tls": authority.tls(uri("hub-a"))})
        async with hubs(a):
            context = ssl.create_default_context(cafile=str(authority.bundle))
            context.check_hostname = False
            async with Stranger(a.port, context) as one:
                one.writer.write(frame(FrameType.HELLO, hello().pack()))
                assert await one.end() == b""
            await until(lambda: a.refused() == {"certificate": 1})
            async with Stranger(a.port) as one:  # frames without TLS
                one.writer.write(frame(FrameType.HELLO, hello().pack()))
                assert await one.end() == b""
            assert a.refused() == {"certificate": 1, "plain": 1}
            b = Hub("hub-b")
            async with hubs(b):
                b.dial(f"tcp://127.0.0.1:{a.port}", f"ws://127.0.0.1:{a.port}/mesh")
                await until(lambda: a.refused().get("plain", 0) >= 3)
                assert not b.events
                (tls,) = [route for url, route in b.mesh.routes.items() if url.startswith("ws:")]
                await until(lambda: tls.last_error == "http_403")

    run(main)


def test_a_hub_does_not_start_with_certificates_that_nobody_would_take(tmp_path):
    async def main():
        authority = Authority(tmp_path)
        a = Hub("hub-a", {"require_mtls": True, "tls": authority.tls(uri("hub-b"))})
        with pytest.raises(OSError, match="does not name this replica"):
            await a.start()
        broken = authority.tls(uri("hub-a"))
        authority.bundle.write_bytes(authority.pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        a = Hub("hub-a", {"require_mtls": True, "tls": broken})
        with pytest.raises(OSError, match="ca_bundle.*malformed"):
            await a.start()
        assert not a.mesh.address

    run(main)


def test_certificates_are_replaced_under_a_link(tmp_path, monkeypatch):
    refused = []
    told = SimpleNamespace(warning=lambda event, **fields: refused.append(event), info=lambda event, **fields: None)
    monkeypatch.setattr(keyring, "FILES_EVERY", 0.02)
    monkeypatch.setattr(keyring, "_log", told)

    async def main():
        old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
        sections = {name: old.tls(uri(name)) for name in ("hub-a", "hub-b")}
        a, b = (Hub(name, {"require_mtls": True, "tls": tls}) for name, tls in sections.items())
        async with hubs(a, b):
            a.dial(f"tls://127.0.0.1:{b.port}")
            await linked(a, b)
            first = a.linked(b), b.linked(a)
            was = a.mesh.keys.certificates, b.mesh.keys.certificates
            old.bundle.write_bytes(b"-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n")
            await until(lambda: len(refused) == 2, "broken files are noticed")
            await asyncio.sleep(0.1)  # some more looks at the files, which say no more
            assert len(refused) == 2
            assert (a.mesh.keys.certificates, b.mesh.keys.certificates) == was
            old.bundle.write_bytes(old.pem + new.pem)
            for name, tls in sections.items():
                new.issue(uri(name), path=tmp_path / os.path.basename(tls["cert_file"]))
            await until(
                lambda: a.mesh.keys.certificates is not was[0] and b.mesh.keys.certificates is not was[1],
                "new files are taken",
            )
            await asyncio.sleep(0.1)  # some more looks at the files
            assert (a.linked(b), b.linked(a)) == first and a.events == [("up", "hub-b")]
            old.bundle.write_bytes(new.pem)
            a.mesh.configure(a.config)  # as SIGHUP does
            b.mesh.configure(b.config)
            assert (a.linked(b), b.linked(a)) == first
            a.linked(b).link.fail(Reason.STALLED)
            await until(lambda: a.linked(b) not in (None, first[0]))
            await linked(a, b)
            old.bundle.write_bytes(b"")
            with pytest.raises(OSError, match="no certificate"):
                a.mesh.configure(a.config)
            assert a.linked(b)

    run(main)


# headers of an ingress


GOOD = (("X-Forwarded-Proto", "https"), ("X-Forwarded-Client-Cert", "Hash=1;URI=ncfast://ncfast/replica/hub-z"))


async def ask(
    port: int, *headers: tuple[str, str], path: str = "/mesh", context: ssl.SSLContext | None = None
) -> tuple[int, Stranger]:
    """The status of a handshake's answer, and the connection behind it."""
    key = base64.b64encode(bytes(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: hub",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in headers),
        "",
        "",
    ]
    one = await Stranger(port, context).__aenter__()
    one.writer.write("\r\n".join(lines).encode())
    head = await one.reader.readuntil(b"\r\n\r\n")
    return int(head.split()[1]), one


def message(data: bytes) -> bytes:
    """A masked binary message, with a key of zeros."""
    assert len(data) > 125
    return struct.pack(">BBH4x", 0x82, 0x80 | 126, len(data)) + data


async def websocket_frame(one: Stranger) -> tuple[int, bytes]:
    """(opcode, payload) of the next message that is not a ping of the link."""
    while True:
        head = await one.reader.readexactly(2)
        length = head[1] if head[1] < 126 else int.from_bytes(await one.reader.readexactly(2))
        data = await one.reader.readexactly(length)
        if data[0] != FrameType.PING:
            return head[0] & 15, data


def test_headers_of_a_trusted_ingress_say_who_it_is(tmp_path):
    async def main():
        a = Hub(
            "hub-a",
            {"require_mtls": True, "tls": Authority(tmp_path).tls(uri("hub-a")), "trusted_proxies": ["127.0.0.0/8"]},
        )
        async with hubs(a):
            status, one = await ask(a.port, *GOOD)
            assert status == 101
            one.writer.write(message(frame(FrameType.HELLO, hello("hub-z").pack())))
            opcode, data = await websocket_frame(one)
            assert opcode == 2 and data[0] == FrameType.HELLO_ACK
            one.writer.close()
            status, one = await ask(a.port, *GOOD)
            one.writer.write(message(frame(FrameType.HELLO, hello("hub-y").pack())))
            opcode, data = await websocket_frame(one)
            assert opcode == 8 and int.from_bytes(data[:2]) == 1008
            one.writer.close()
            assert a.refused() == {"identity": 1} and not a.events

    run(main)


SPOOFS = {
    "duplicate": ([*GOOD, GOOD[1]], 400),
    "first of a list": ([GOOD[0], (GOOD[1][0], GOOD[1][1] + ",Hash=2;URI=ncfast://ncfast/replica/real")], 400),
    "both families": ([*GOOD, ("X-SSL-Client-Verify", "SUCCESS"), ("X-SSL-Client-SAN", "DNS:hub-z")], 400),
    "no proto": ([GOOD[1]], 403),
    "http": ([("X-Forwarded-Proto", "http"), GOOD[1]], 403),
    "two protos": ([GOOD[0], *GOOD], 400),
    "not verified": ([GOOD[0], ("X-SSL-Client-Verify", "FAILED:x"), ("X-SSL-Client-SAN", "DNS:hub-z")], 403),
    "nothing shown": ([GOOD[0]], 403),
    "nothing at all": ([], 403),
    "a browser": ([*GOOD, ("Origin", "https://evil.example")], 403),
    "a body": ([*GOOD, ("Content-Length", "0")], 400),
}


def test_spoofed_headers_give_no_identity(tmp_path):
    async def main():
        tls = Authority(tmp_path).tls(uri("hub-a"))
        trusting = Hub("hub-a", {"require_mtls": True, "tls": tls, "trusted_proxies": ["127.0.0.1/32"]})
        wary = Hub("hub-a", {"require_mtls": True, "tls": tls, "trusted_proxies": ["10.0.0.0/8"]})
        open_ = Hub("hub-a", {"trusted_proxies": ["10.0.0.0/8"]})
        async with hubs(trusting, wary, open_):
            for what, (headers, expected) in SPOOFS.items():
                before = sum(trusting.refused().values())
                status, one = await ask(trusting.port, *headers)
                one.writer.close()
                assert status == expected, what
                assert sum(trusting.refused().values()) == before + 1, what
            for hub in (wary, open_):  # an untrusted address, whatever else would let it in
                for family in (
                    GOOD,
                    [("X-SSL-Client-Verify", "SUCCESS"), ("X-SSL-Client-SAN", "DNS:hub-z"), GOOD[0]],
                    [("X-SSL-Client-SAN", "")],
                ):
                    status, one = await ask(hub.port, *family)
                    one.writer.close()
                    assert status == 403
                assert hub.refused() == {"proxy_untrusted": 3}
            for path, expected in (("/", 404), ("/mesh/", 404), ("/mesh?x", 404), ("/tunnel", 404)):
                status, one = await ask(open_.port, path=path)
                one.writer.close()
                assert status == expected

    run(main)


def test_an_ingress_may_speak_mutual_tls_itself(tmp_path):
    """Its certificate is of the mesh's authority and names no replica; the headers do."""

    async def main():
        authority = Authority(tmp_path)
        section = {"require_mtls": True, "tls": authority.tls(uri("hub-a"))}
        trusting, wary = Hub("hub-a", section | {"trusted_proxies": ["127.0.0.0/8"]}), Hub("hub-a", section)
        own = authority.tls("DNS:ingress.example.net")
        context = ssl.create_default_context(cafile=str(authority.bundle))
        context.check_hostname = False
        context.load_cert_chain(own["cert_file"])
        async with hubs(trusting, wary):
            status, one = await ask(trusting.port, *GOOD, context=context)
            assert status == 101
            one.writer.close()
            status, one = await ask(wary.port, *GOOD, context=context)
            assert status == 403 and wary.refused() == {"proxy_untrusted": 1}
            one.writer.close()
            status, one = await ask(trusting.port, context=context)  # without headers it is only itself
            assert status == 101
            one.writer.write(message(frame(FrameType.HELLO, hello("hub-z").pack())))
            assert (await websocket_frame(one))[0] == 8 and trusting.refused() == {"identity": 1}
            one.writer.close()

    run(main)


# addresses


def test_that_it_is_on_this_machine_lets_nobody_in(tmp_path):
    """Neither on loopback, nor at the public edge: there is no secret, so nothing is proved."""

    async def main():
        a = Hub("hub-a", {"require_mtls": False, "tls": Authority(tmp_path).tls(uri("hub-a"))})
        async with hubs(a):
            async with Stranger(a.port) as one:
                one.writer.write(frame(FrameType.HELLO, hello().pack()))
                assert await one.end() == b""
            status, one = await ask(a.port)
            one.writer.close()
            assert status == 403
            answer = a.mesh.serve_http(Request("/mesh", Headers()), None, host="127.0.0.1", remote="127.0.0.1:1")
            assert answer is not None and answer.status == 403
            assert a.refused() == {"unproven": 3}
            for url in (f"tcp://127.0.0.1:{a.port}", f"ws://127.0.0.1:{a.port}/mesh"):
                a.dial(url)
                await until(lambda url=url: a.mesh.routes[url].last_error == "unproven", f"{url} is not believed")

    run(main)


@pytest.mark.parametrize("ours", [True, False])
def test_on_a_unix_socket_the_kernel_says_whose_process_it_is(tmp_path, monkeypatch, ours):
    """At both ends: who listens, and who connects. Another user's process proves nothing."""
    if not ours:
        monkeypatch.setattr(peercred.os, "geteuid", lambda: 4242)
        monkeypatch.setattr(peercred, "ROOT", 4243)

    async def main():
        a, b = (
            Hub(name, {"listen": None, "listen_unix": str(tmp_path / f"{name}.sock"), "secret_file": None})
            for name in ("hub-a", "hub-b")
        )
        async with hubs(a, b):
            url = f"unix://{b.mesh.address}"
            a.dial(url)
            if ours:
                await linked(a, b)
                assert a.linked(b).credential.kind == b.linked(a).credential.kind == "machine"
                return
            await until(lambda: a.mesh.routes[url].last_error == "unproven", "the one that dials")
            reader, writer = await asyncio.open_unix_connection(b.mesh.address)
            writer.write(frame(FrameType.HELLO, hello().pack()))
            assert await reader.read() == b"" and b.refused()["unproven"] >= 1
            writer.close()

    run(main)


# a shared secret


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_a_shared_secret_lets_peers_in(tmp_path, scheme):
    async def main():
        path = secret_file(tmp_path / "secret")
        a, b = Hub("hub-a", {"secret_file": path}), Hub("hub-b", {"secret_file": path})
        async with Wire(lambda: b.port) as wire, hubs(a, b):
            url = f"{scheme}://127.0.0.1:{wire.port}" + ("/mesh" if scheme == "ws" else "")
            b.reached_by(url)
            a.dial(url)
            await linked(a, b)
            assert a.linked(b).credential.kind == b.linked(a).credential.kind == "secret"

    run(main)


def test_the_secret_never_crosses_the_wire_and_a_wrong_one_is_refused_at_both_ends(tmp_path):
    async def main():
        right, wrong_one = secret_file(tmp_path / "right"), secret_file(tmp_path / "wrong", "x" * 64)
        a = Hub("hub-a", {"secret_file": right})
        b = Hub("hub-b", {"secret_file": wrong_one})
        none = Hub("hub-c")
        async with hubs(a, b, none):
            b.dial(f"tcp://127.0.0.1:{a.port}")  # notices first, since the listener proves first
            await until(lambda: b.refused().get("secret"))
            b.dial()
            assert b.mesh.peers == a.mesh.peers == []
            async with Stranger(a.port) as one:  # one that does not mind
                one.writer.write(frame(FrameType.HELLO, hello(to=a).pack()))
                kind, _, body = await one.frame()
                assert kind == FrameType.HELLO_ACK and b"0123456789abcdef" * 4 not in body
                one.writer.write(
                    frame(
                        FrameType.AUTH,
                        Auth(proof=proof(b"x" * 64, "dialler", hello(to=a), HelloAck.unpack(body))).pack(),
                    )
                )
                assert (await one.frame())[:2] == (FrameType.GOAWAY, 74)
            async with Stranger(a.port) as one:
                one.writer.write(frame(FrameType.HELLO, hello(to=a).pack()))
                await one.frame()
                one.writer.write(frame(FrameType.AUTH, b"{}"))
                assert (await one.frame())[:2] == (FrameType.GOAWAY, 74)
            assert a.refused() == {"secret": 2}
            a.dial(f"unix:///{tmp_path}/nowhere")

    run(main)


def test_a_listener_without_the_secret_is_refused(tmp_path):
    async def main():
        a = Hub("hub-a", {"secret_file": secret_file(tmp_path / "secret")})
        b = Hub("hub-b", {"listen": None, "listen_unix": str(tmp_path / "b.sock"), "secret_file": None})
        async with hubs(a, b):
            a.dial(f"unix://{b.mesh.address}")
            await until(lambda: a.refused().get("secret"))
            assert not a.events and not b.events

    run(main)


def test_proofs_cannot_be_reflected_or_replayed(tmp_path):
    async def main():
        a = Hub("hub-a", {"secret_file": secret_file(tmp_path / "secret")})
        b = Hub("hub-b", {"secret_file": secret_file(tmp_path / "secret")})
        async with hubs(a, b):
            async with Stranger(a.port) as one:  # the listener's own proof, sent back
                one.writer.write(frame(FrameType.HELLO, hello(to=a).pack()))
                _, _, body = await one.frame()
                one.writer.write(frame(FrameType.AUTH, Auth(proof=HelloAck.unpack(body).proof).pack()))
                assert (await one.frame())[:2] == (FrameType.GOAWAY, 74)
            heard = []

            async def overhear(reader, writer):
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", a.port)

                async def carry(source, sink, note):
                    while data := await source.read(65536):
                        note.append(data)
                        sink.write(data)
                    sink.close()

                await asyncio.gather(
                    carry(reader, up_writer, heard), carry(up_reader, writer, []), return_exceptions=True
                )

            server = await asyncio.start_server(overhear, "127.0.0.1", 0)
            url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            a.reached_by(url)
            b.dial(url)
            await linked(a, b)
            b.linked(a).link.fail(Reason.GOING_AWAY)
            b.dial()
            await until(lambda: not a.mesh.peers)
            server.close()
            recorded = b"".join(heard)  # HELLO and AUTH of an honest peer, said again
            before = a.refused()["secret"]
            async with Stranger(a.port) as one:
                one.writer.write(recorded)
                await one.end()
            assert a.refused()["secret"] == before + 1 and not a.mesh.peers
            assert (b"0123456789abcdef" * 4) not in recorded

    run(main)


def test_one_who_relays_the_challenge_elsewhere_gets_nothing_of_use(tmp_path):
    """A hub-b without the secret dials a, and lets a's own dial to it answer the challenge: names and roles are in the
    proof."""

    async def main():
        a = Hub("hub-a", {"secret_file": secret_file(tmp_path / "secret")})
        done = asyncio.Event()

        async def mallory(reader, writer):
            head = await reader.readexactly(56)
            asked = Hello.unpack(await reader.readexactly(int.from_bytes(head[4:8])))
            async with Stranger(a.port) as one:
                said = hello("hub-b", asked.nonce, to=a)
                one.writer.write(frame(FrameType.HELLO, said.pack()))
                _, _, body = await one.frame()
                theirs = HelloAck.unpack(body)
                ack = HelloAck(**(said.model_dump() | {"nonce": theirs.nonce, "proof": theirs.proof}))
                writer.write(frame(FrameType.HELLO_ACK, ack.pack()))
                await reader.read()
            writer.close()
            done.set()

        server = await asyncio.start_server(mallory, "127.0.0.1", 0)
        async with hubs(a):
            a.dial(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            await done.wait()
            a.dial()
            assert a.refused()["secret"] >= 1 and not a.events
        server.close()

    run(main)


def test_a_short_secret_is_refused_at_the_start(tmp_path):
    async def main():
        a = Hub("hub-a", {"secret_file": secret_file(tmp_path / "secret", "short")})
        with pytest.raises(OSError, match="secret_file.*at least 32"):
            await a.start()

    run(main)


# silence and floods


@pytest.mark.parametrize("reason", ["too_many_handshakes", "rate"])
def test_silent_and_slow_connections_end_and_delay_nobody(reason, monkeypatch, tmp_path):
    monkeypatch.setattr(accept, "ENTRANCE_TIMEOUT", 3.0)
    monkeypatch.setattr(manager, "HELLO_TIMEOUT", 3.0)
    if reason != "rate":
        monkeypatch.setattr(door, "CONNECTS_PER_SEC", 0.0)

    async def main():
        authority = Authority(tmp_path)
        a = Hub("hub-a", {"require_mtls": True, "tls": authority.tls(uri("hub-a"))})
        b = Hub("hub-b", {"require_mtls": True, "tls": authority.tls(uri("hub-b"))})
        starts = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"G", b"GET /mesh HTTP/1.1\r\nHost: x\r\n", b"\x01"]
        async with hubs(a, b):
            crowd = []
            for number in range(600):
                sock = socket.socket()
                sock.bind(("127.0.0.2", 0))
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", a.port))
                crowd.append(sock)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            for number, sock in enumerate(crowd):
                try:
                    sock.send(starts[number % len(starts)])
                except OSError:  # has had to make room already
                    pass
            b.dial(f"tls://127.0.0.1:{a.port}")
            await linked(a, b)
            assert len(a.mesh.door.pending) <= door.MAX_PENDING
            if reason == "rate":
                assert a.refused()["rate"] > 0
            else:
                assert a.refused()["too_many_handshakes"] >= 600 - door.MAX_PENDING - 1
            await until(lambda: a.net.sockets == 1, "all of them are gone")
            assert not a.mesh.door.pending and len(a.events) == 1
            for sock in crowd:
                sock.close()

    run(main)


def test_hello_must_come_in_time(monkeypatch):
    monkeypatch.setattr(manager, "HELLO_TIMEOUT", 1.0)

    async def main():
        a = Hub("hub-a")
        async with hubs(a):
            async with Stranger(a.port) as one:
                one.writer.write(b"\x01")
                kind, code, _ = await one.frame()
                assert (kind, code) == (FrameType.GOAWAY, 72)
            async with Stranger(a.port) as one:  # HELLO, and then nothing
                one.writer.write(frame(FrameType.HELLO, hello(to=a).pack()))
                assert (await one.frame())[0] == FrameType.HELLO_ACK
                assert (await one.frame())[:2] == (FrameType.GOAWAY, 72)
            assert a.refused() == {"timeout": 2}
            silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
            url = f"tcp://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
            a.dial(url)
            await until(lambda: a.mesh.routes[url].last_error == "timeout")
            silent.close()

    run(main)


@pytest.mark.parametrize(
    "early",
    [
        encode(FrameType.M_OPEN, cid=b"\x22" * 16, epoch=1, limit=1 << 16, payload=b"{}"),
        encode(FrameType.M_RESUME, cid=b"\x22" * 16, epoch=1, limit=1 << 16, payload=bytes(16) + b"{}"),
        encode(FrameType.HELLO, payload=hello().pack()),
        encode(FrameType.HELLO_ACK, payload=hello().pack()),
        encode(FrameType.GOAWAY, code=Reason.DRAINING),
        encode(FrameType.AUTH, payload=b"[]"),
    ],
    ids=["open", "resume", "hello", "hello_ack", "goaway", "auth"],
)
def test_only_an_auth_comes_between_hello_and_the_link(early):
    async def main():
        a = Hub("hub-a")
        async with hubs(a):
            async with Stranger(a.port) as one:
                one.writer.write(frame(FrameType.HELLO, hello(to=a).pack()))
                assert (await one.frame())[0] == FrameType.HELLO_ACK
                one.writer.write(early)
                assert (await one.frame())[:2] == (FrameType.GOAWAY, Reason.PROTOCOL_ERROR)
            assert a.refused() == {"malformed": 1} and not a.events

    run(main)


@pytest.mark.parametrize(
    "first", [b"\x02", b"\x00", b"SSH-2.0-x\r\n", b"\xff" * 100, b"PRI * HTTP/2.0\r\n\r\n", b"\x16\x03\x01"]
)
def test_other_protocols_are_turned_away(first):
    async def main():
        a = Hub("hub-a")
        async with hubs(a):
            async with Stranger(a.port) as one:
                one.writer.write(first)
                assert await one.end() == b""
            assert a.refused() == {"no_certificates" if first[0] == 0x16 else "not_mesh": 1}

    run(main)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /mesh HTTP/1.1\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET /mesh HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /mesh HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n",
        b"GET /mesh HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 9000 + b"\r\n\r\n",
        b"GET /mesh HTTP/1.1\r\nHost: x\r\n\r\n\x01early",
        b"GET /mesh HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_malformed_requests_are_answered_and_closed(head):
    async def main():
        a = Hub("hub-a")
        async with hubs(a):
            async with Stranger(a.port) as one:
                one.writer.write(head)
                answer = await one.end()
                assert answer.startswith(b"HTTP/1.1 4")
            assert sum(a.refused().values()) == 1 and not a.events

    run(main)


def test_refusals_are_security_events_without_secrets(tmp_path):
    stream = io.StringIO()
    log.setup("debug", "json", stream=stream)

    async def main():
        path = secret_file(tmp_path / "secret")
        a = Hub("hub-a", {"secret_file": path})
        async with hubs(a), Stranger(a.port) as one:
            one.writer.write(frame(FrameType.HELLO, hello("canary-name", to=a).pack()))
            await one.frame()
            one.writer.write(frame(FrameType.AUTH, json.dumps({"proof": "ca" * 32}).encode()))
            await one.end()
        log.flush()

    try:
        run(main)
    finally:
        log.setup()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    refused = [line for line in lines if line["event"] == "mesh_refused" and line["reason"] == "secret"]
    assert refused and refused[0]["security"] is True
    text = json.dumps(lines)
    assert (
        "canary" not in text
        and "caca" not in text
        and "0123456789abcdef0123" not in text
        and not any("unlisted" in line for line in lines)
    )
