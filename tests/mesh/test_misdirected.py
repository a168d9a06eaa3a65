"""Redis stands outside: where its URLs may lead, who may answer them, and what a proof of the secret is bound to."""

from __future__ import annotations

import asyncio
import ssl
from types import SimpleNamespace

import pytest
from support.until import until

from mesh.authority import Authority, uri
from mesh.hubs import Hub, hubs, linked, run, secret_file
from mesh.wires import Wire
from ncfast.config.ha import Mesh as MeshConfig
from ncfast.mesh import learnt, route
from ncfast.mesh.binding import Binding, fits, normal, place
from ncfast.mesh.dial import DialFailed
from ncfast.mesh.handshake import Hello
from ncfast.mesh.learnt import MAX_ENTRIES, Learnt
from ncfast.mesh.policy import Policy
from ncfast.mesh.trust import Refused


def entry(name: str, url: str) -> SimpleNamespace:
    """Of the registry."""
    return SimpleNamespace(replica_id=name, instance="00" * 8, mesh_url=url)


def tcp(hub: Hub) -> str:
    return f"tcp://127.0.0.1:{hub.port}"


def hello(url: str = "", place: str = "", channel: str = "") -> Hello:
    return Hello(
        version=1,
        cluster="ncfast",
        replica_id="hub-z",
        instance="22" * 8,
        nonce="11" * 32,
        url=url,
        place=place,
        channel=channel,
    )


# where URLs of the registry may lead


def rules(**mesh) -> Learnt:
    return Learnt(MeshConfig.model_validate({"require_mtls": False, "secret_file": "/s", "listen": ":9500"} | mesh))


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("tcp://192.0.2.1:9500", True),
        ("tls://hub-b.example:9500", True),
        ("ws://192.0.2.1/mesh", True),
        ("wss://hub-b.example:8443/mesh", True),
        ("ws://127.0.0.1:9400/any/path", False),
        ("ws://127.0.0.1:9400/drain/mesh", False),
        ("wss://hub-b.example/mesh?x=/mesh", False),
        ("http://192.0.2.1/mesh", False),
        ("wss://user:word@hub-b.example/mesh", False),
        ("wss://hub-b.example/mesh\r\nHost: x", False),
        ("unix:///run/other/docker.sock", False),
        ("unix:///run/ncfast/../docker.sock", False),
        ("unix:///run/ncfast/hub-b.sock", True),
        ("tcp://" + "a" * 600 + ":1", False),
        ("tcp://[::1", False),
        ("", False),
    ],
)
def test_urls_of_the_registry(url, taken):
    assert rules(listen_unix="/run/ncfast/hub-a.sock").fits(url) is taken


def test_mutual_tls_holds_for_urls_of_the_registry(tmp_path):
    tls = Authority(tmp_path).tls(uri("hub-a"))
    one = rules(require_mtls=True, tls=tls)
    assert [one.fits(f"{scheme}://192.0.2.1:9500") for scheme in ("tcp", "tls")] == [False, True]
    assert [one.fits(f"{scheme}://192.0.2.1/mesh") for scheme in ("ws", "wss")] == [False, True]


@pytest.mark.parametrize(
    ("address", "anywhere", "on_loopback", "listed"),
    [
        ("192.0.2.1", True, True, False),
        ("10.1.2.3", True, True, True),
        ("2001:db8::1", True, True, False),
        ("127.0.0.1", False, True, False),
        ("127.9.9.9", False, True, False),
        ("::1", False, True, False),
        ("::ffff:127.0.0.1", False, True, False),
        ("169.254.169.254", False, False, False),
        ("fe80::1%eth0", False, False, False),
        ("0.0.0.0", False, False, False),
        ("::", False, False, False),
        ("224.0.0.1", False, False, False),
        ("255.255.255.255", False, False, False),
        ("::ffff:10.1.2.3", True, True, True),
    ],
)
def test_addresses_that_urls_of_the_registry_may_lead_to(address, anywhere, on_loopback, listed):
    assert rules().admits("x", address) is anywhere
    assert rules(listen="127.0.0.1:9500").admits("x", address) is on_loopback
    assert rules(advertise="tcp://[::1]:9500").admits("x", address) is on_loopback
    named = rules(allow=["10.0.0.0/8", "hub-b.example", ".cluster.example"])
    assert named.admits("x", address) is listed
    assert named.admits("hub-b.example", address) and named.admits("Hub-1.Cluster.example", address)
    assert not named.admits("xhub-b.example", "192.0.2.1")


def test_a_crowd_of_entries_does_not_push_out_what_was_there():
    crowd = [entry(f"a-{number:05}", f"tcp://192.0.2.1:{number + 1}") for number in range(MAX_ENTRIES * 4)]
    chosen = rules().choose([*crowd, entry("hub-b", "tcp://192.0.2.9:1")], ["tcp://192.0.2.9:1"])
    assert len(chosen) == MAX_ENTRIES and chosen["tcp://192.0.2.9:1"] == "hub-b"


def test_few_are_dialled_at_a_time(monkeypatch):
    async def main():
        asked, gate = [], asyncio.Event()

        async def dial(mesh, way, url, admit=None):
            asked.append(url)
            await gate.wait()
            raise DialFailed("unreachable", "a test")

        monkeypatch.setattr(route, "dial", dial)
        a = Hub("hub-a")
        async with hubs(a):
            a.mesh.discovered([entry(f"b-{number}", f"tcp://127.0.0.1:{number + 1}") for number in range(100)])
            await until(lambda: len(asked) == learnt.MAX_DIALS)
            a.dial("tcp://127.0.0.1:999")  # one of the file waits for none of them
            await until(lambda: "tcp://127.0.0.1:999" in asked)
            assert len(asked) == learnt.MAX_DIALS + 1
            gate.set()

    run(main)


def test_an_address_that_is_not_allowed_is_not_even_connected_to():
    async def main():
        knocks = []
        server = await asyncio.start_server(lambda reader, writer: knocks.append(writer), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        a = Hub("hub-a", {"listen": ":0"})
        urls = [f"tcp://127.0.0.1:{port}", f"ws://localhost:{port}/mesh"]
        async with hubs(a):
            a.mesh.discovered([entry(f"hub-{number}", url) for number, url in enumerate(urls)])
            await until(lambda: all(a.mesh.routes[url].last_error == "unreachable" for url in urls))
            assert not knocks
            a.dial(urls[0])  # the file's word
            await until(lambda: knocks)
        for writer in knocks:
            writer.close()
        server.close()

    run(main)


# who may answer


@pytest.mark.parametrize("security", ["secret", "certificates"])
def test_whoever_answers_is_the_replica_that_the_registry_names(tmp_path, security):
    """An honest hub at another's URL is not it; from the file, any of the cluster may be there."""

    async def main():
        authority = Authority(tmp_path)
        section = {"require_mtls": True} if security == "certificates" else {}
        tls = {name: {"tls": authority.tls(uri(name))} if section else {} for name in ("hub-a", "hub-b")}
        a, b = (Hub(name, section | tls[name]) for name in ("hub-a", "hub-b"))
        async with hubs(a, b):
            url = f"{'tls' if section else 'tcp'}://127.0.0.1:{b.port}"
            a.mesh.discovered([entry("hub-c", url)])
            await until(lambda: a.mesh.routes[url].last_error == "identity")
            assert not a.events and not b.events and a.refused()["identity"] >= 1
            a.mesh.discovered([entry("hub-b", url)])
            await linked(a, b)

        c = Hub("hub-a", section | tls["hub-a"])
        async with hubs(c, b2 := Hub("hub-b", section | tls["hub-b"])):
            url = f"{'tls' if section else 'tcp'}://127.0.0.1:{b2.port}"
            c.dial(url)
            c.mesh.discovered([entry("hub-c", url)])
            await linked(c, b2)

    run(main)


def test_what_answers_without_a_proof_is_nobody():
    """Neither an ingress with anybody's certificate, unless the file names it, nor a process of this machine."""
    mtls, shared, bare = Policy(True, False, ()), Policy(False, True, ()), Policy(False, False, ())
    for policy in (mtls, bare):
        for scheme in ("wss", "tcp", "ws", "unix"):
            with pytest.raises(Refused):
                policy.of_answer(scheme, None, False, False)
    with pytest.raises(Refused) as refused:
        Policy(True, True, ()).of_answer("tcp", None, False, True)
    assert refused.value.reason == "plain"
    assert Policy(True, True, ()).of_answer("wss", None, False, True).kind == "secret"
    assert not shared.of_answer("tcp", None, False, True).stands
    assert mtls.of_answer("wss", None, False, True).kind == "ingress"
    assert mtls.of_answer("unix", None, True, False).stands


def test_a_certificate_of_the_system_s_authorities_makes_no_replica(tmp_path):
    """wss:// trusts them for the URL's host; what such a certificate says of replicas counts for nothing."""

    async def main():
        mesh, system = Authority(tmp_path), Authority(tmp_path, "system")
        a = Hub("hub-a", {"require_mtls": True, "tls": mesh.tls(uri("hub-a"))})
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(system.tls(uri("hub-b"), "DNS:localhost")["cert_file"])
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=context)
        url = f"wss://localhost:{server.sockets[0].getsockname()[1]}/mesh"
        async with hubs(a):
            a.mesh.discovered([entry("hub-b", url)])
            (await a.mesh.keys.web_context()).load_verify_locations(cadata=system.pem.decode())
            await until(lambda: a.mesh.routes[url].last_error == "unproven")
        server.close()

    run(main)


# what a proof is bound to


def test_places_are_written_alike_at_both_ends():
    assert place(("192.0.2.1", 9500)) == place(("::ffff:192.0.2.1", 9500, 0, 0)) == "192.0.2.1:9500"
    assert place(("fe80::1%eth0", 9500, 0, 2)) == "[fe80::1]:9500" and place("/run/a.sock") == "unix:/run/a.sock"
    assert place("") == place(None) == place(("no address", 1)) == ""


def test_urls_are_compared_by_what_they_mean():
    assert normal("wss://Hub-B.example/mesh") == normal("wss://hub-b.example:443/mesh")
    assert normal("wss://hub-b.example/mesh") != normal("ws://hub-b.example/mesh")


@pytest.mark.parametrize(
    ("said", "own", "ended_here", "fit"),
    [
        (hello(channel="aa"), Binding("p", "aa"), True, True),
        (hello(channel="bb"), Binding("p", "aa"), True, False),
        (hello("wss://known/mesh", "p", ""), Binding("p", "aa"), True, False),  # somebody has put TLS around it
        (hello("tcp://other:1", "192.0.2.1:1"), Binding("192.0.2.1:1"), True, True),
        (hello("tcp://other:1", "192.0.2.2:1"), Binding("192.0.2.1:1"), True, False),
        (hello("tcp://known:1", "192.0.2.2:1"), Binding("192.0.2.1:1"), True, True),  # through a balancer
        (
            hello("wss://other/mesh", "192.0.2.1:1", "aa"),
            Binding("192.0.2.1:1"),
            True,
            False,
        ),  # TLS was ended before us
        (hello("wss://known/mesh", "192.0.2.2:1", "aa"), Binding("192.0.2.1:1"), True, True),
        (hello("wss://known/mesh", "192.0.2.2:1", "aa"), Binding("192.0.2.1:1", "bb"), False, True),
        (hello("wss://other/mesh", "192.0.2.2:1", "aa"), Binding("192.0.2.1:1", "bb"), False, False),
        (hello(), Binding(), True, False),  # an older hub, or one that does not say
    ],
)
def test_a_hello_must_be_meant_for_this_connection(said, own, ended_here, fit):
    known = ["tcp://known:1", "wss://known/mesh"]
    assert fits(said, own, ended_here=ended_here, urls=known) is fit


def test_one_who_passes_the_handshake_through_gets_no_link(tmp_path):
    """The man in the middle is at an address that Redis gave out. Every byte of the handshake is honest, and both ends
    know the secret."""

    async def main():
        a, b = Hub("hub-a"), Hub("hub-b")
        async with Wire(lambda: b.port) as wire, hubs(a, b):
            a.mesh.discovered([entry("hub-b", wire.url)])
            await until(lambda: b.refused().get("misdirected") and a.mesh.routes[wire.url].errors)
            assert not a.events and not b.events
            b.reached_by(wire.url)  # the operator says that it is a balancer
            await linked(a, b)

    run(main)


def test_one_who_ends_tls_on_both_sides_gets_no_link(tmp_path):
    """With the key of a replica that he has stolen, he passes through HELLO and proofs of the secret: two channels."""

    async def main():
        authority, path = Authority(tmp_path), secret_file(tmp_path / "secret")
        section = {"require_mtls": True, "secret_file": path}
        stolen = {name: authority.tls(uri(name)) for name in ("hub-a", "hub-b")}
        a, b = (Hub(name, section | {"tls": stolen[name]}) for name in ("hub-a", "hub-b"))

        def context(protocol: int, tls: dict[str, str]) -> ssl.SSLContext:
            made = ssl.SSLContext(protocol)
            made.check_hostname = False
            made.load_verify_locations(tls["ca_bundle"])
            made.verify_mode = ssl.CERT_REQUIRED
            made.load_cert_chain(tls["cert_file"])
            return made

        async def between(reader, writer):
            there, here = await asyncio.open_connection(
                "127.0.0.1", b.port, ssl=context(ssl.PROTOCOL_TLS_CLIENT, stolen["hub-a"])
            )

            async def carry(source, sink):
                try:
                    while data := await source.read(65536):
                        sink.write(data)
                finally:
                    sink.close()

            await asyncio.gather(carry(reader, here), carry(there, writer), return_exceptions=True)

        server = await asyncio.start_server(
            between, "127.0.0.1", 0, ssl=context(ssl.PROTOCOL_TLS_SERVER, stolen["hub-b"])
        )
        url = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with hubs(a, b):
            a.dial(url)
            await until(lambda: b.refused().get("misdirected"))
            assert not a.events and not b.events
            a.dial(f"tls://127.0.0.1:{b.port}")
            await linked(a, b)
        server.close()

    run(main)
