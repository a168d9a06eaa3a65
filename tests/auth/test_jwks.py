"""Keys by URL: fetched in the background, kept through outages, and no flood of tokens has them refetched."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from support.connect_proxy import connect_proxy
from support.tokens import NOW, genuine, jwk, jwks, policy
from support.until import PATIENCE, until

from ncfast.auth import AuthError, AuthSetupError, Identity, Verifier
from ncfast.auth.jwks import parse_jwks
from ncfast.auth.remote import COOLDOWN_SEC, MAX_ABSENT, REFRESH_SEC, STALE_SEC, JwksKeys
from ncfast.net import fetch
from ncfast.net.fetch import MAX_BODY_BYTES, TIMEOUT_SEC, FetchError, HttpsFetch
from ncfast.net.seam import Net

URL = "https://id.example/keys"
DOCUMENT = jwks(jwk("RS256", kid="k1"))
ROTATED = jwks(jwk("RS256", kid="k1"), jwk("ES256", kid="k2"))


class PushedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still unless a test pushes it forward: slow work takes no time."""

    _now = 0.0

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


def run(main):
    with asyncio.Runner(loop_factory=PushedLoop) as runner:
        return runner.run(main)


def net() -> Net:
    return Net(asyncio.get_running_loop(), rng=random.Random(1))


@pytest.fixture
def idle():
    """A seam that nothing goes through."""
    loop = asyncio.new_event_loop()
    yield Net(loop)
    loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


async def advance(seconds: float) -> None:
    """Push the clock, and let everything that became due run until it waits for something else."""
    asyncio.get_running_loop().advance(seconds)
    for _ in range(10):
        await asyncio.sleep(0)


class Issuer:
    """Stands in for the network: gives `document`, or raises it if it is an exception; notes when asked."""

    def __init__(self, document: bytes | Exception = DOCUMENT) -> None:
        self.document = document
        self.asked: list[float] = []
        self.free = asyncio.Event()
        self.free.set()

    async def __call__(self) -> bytes:
        self.asked.append(now())
        await self.free.wait()
        if isinstance(self.document, Exception):
            raise self.document
        return self.document


@asynccontextmanager
async def keys_from(fetch, algorithms=("RS256", "ES256")):
    keys = JwksKeys(fetch, algorithms, rng=random.Random(1))
    keys.start()
    try:
        yield keys
    finally:
        await keys.aclose()


async def judge(keys: JwksKeys, text: str) -> str:
    """ "ok", or the reason of the refusal."""
    judging = Verifier(policy(algorithms=["RS256", "ES256"]), keys, wall_clock=lambda: NOW)
    try:
        assert isinstance(await judging.verify(text), Identity)
    except AuthError as error:
        return error.reason
    return "ok"


GOOD = genuine("RS256", kid="k1")
NEW = genuine("ES256", kid="k2")


# -- configuration


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://id.example/keys",
        "ftp://id.example/keys",
        "data:application/json,{}",
        "",
        "id.example/keys",
        "//id.example/keys",
        "https://",
        "https:///keys",
        "https://user:word@id.example/keys",
        "https://id.example@evil.example/keys",
        "https://id.example/keys#other",
        "https://id.example:0/keys",
        "https://id.example:99999/keys",
        "https://id.example:x/keys",
        "https://id.example\\@evil.example/",
        "https://id.example/a b",
        "https://id.example/\r\nHost: evil.example",
        "https://[::1/keys",
        "https://[::1%25lo]/",
        "https://id%2eexample/keys",
        "https://idé.example/",
        "https://id..example/",
        f"https://{'a' * 64}.example/",
        "https://id.example/" + "a" * 2048,
        "javascript:alert(1)",
        "HTTPS//id.example",
        " https://id.example/keys",
    ],
)
def test_a_bad_url_is_refused(url, idle):
    with pytest.raises(AuthSetupError, match="jwks_url"):
        JwksKeys.from_url(url, ["RS256"], idle)


@pytest.mark.parametrize(
    "url",
    [
        "https://id.example",
        "https://id.example:8443/a?p=b",
        "https://[::1]:1/",
        "https://127.0.0.1/",
        "HTTPS://ID/",
    ],
)
def test_a_good_url_is_accepted(url, idle):
    JwksKeys.from_url(url, ["RS256"], idle)


def test_a_shared_secret_has_no_url():
    with pytest.raises(AuthSetupError, match="key_file"):
        JwksKeys(Issuer(), ["HS256"], rng=random.Random(1))


def test_an_unfit_ca_file_is_refused_by_name(tmp_path, idle):
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for path in (tmp_path / "absent.pem", tmp_path / "ca.pem"):
        with pytest.raises(AuthSetupError, match=path.name):
            JwksKeys.from_url(URL, ["RS256"], idle, path)


# -- which keys of a document count


def test_only_fit_keys_of_the_document_count():
    async def main():
        document = jwks(
            jwk("RS256", kid="k1", use="sig", alg="RS256", key_ops=["verify"], x5t="?"),
            jwk("ES256", kid="enc", use="enc"),
            jwk("ES256", kid="alg", alg="ES384"),
            jwk("ES256", kid="ops", key_ops=["encrypt"]),
            jwk("ES256", kid="odd", key_ops="verify"),
            jwk("ES256", kid="private", d="AA"),
            jwk("ES256", kid="point", x="AA"),
            jwk("ES256", kid="type", x=1),
            jwk("ES384", kid="curve"),
            jwk("EdDSA", kid="unlisted"),
            {"kty": "oct", "kid": "oct", "k": "AAAA"},
            {"kty": "oct", "kid": "HS", "k": "AAAA", "alg": "RS256"},
            {"kty": "new", "kid": "new"},
            {"kid": "none"},
            {"kty": [], "kid": "list"},
            {"kty": "EC", "crv": {}, "kid": "crv"},
            [],
            None,
            "k",
            1,
            jwk("ES256", kid=5),
            jwk("ES256", kid=""),
            jwk("ES256", kid="k" * 257),
        )
        async with keys_from(Issuer(document)) as keys:
            assert await judge(keys, GOOD) == "ok"
            for kid in "enc alg ops odd private point type curve unlisted oct HS new list crv k2".split():
                for algorithm in ("RS256", "ES256"):
                    with pytest.raises(AuthError):
                        await keys.find(kid, algorithm)
            with pytest.raises(AuthError):
                await keys.find("k1", "ES256")
            assert await keys.find(None, "RS256") == await keys.find("k1", "RS256")  # the sole one

    run(main())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["RSA", "EC", "P-256"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.dictionaries(st.sampled_from("kty crv n e x y d kid use alg key_ops".split()), JSON)


@given(st.lists(ENTRY | ENTRY.map(lambda entry: jwk("RS256") | entry) | JSON, max_size=4))
def test_any_list_of_keys_is_read_or_refused(entries):
    try:
        parsed = parse_jwks(json.dumps({"keys": entries}).encode(), ["RS256", "ES256"])
    except AuthSetupError:
        return
    assert 0 < len(parsed.keys) <= len(entries)


@given(st.binary())
def test_any_document_is_read_or_refused(document):
    with pytest.raises(AuthSetupError):
        parse_jwks(document, ["RS256"])


# -- refreshing


def test_keys_are_fetched_at_start_and_every_five_to_ten_minutes():
    async def main():
        issuer = Issuer()
        async with keys_from(issuer) as keys:
            assert not keys.healthy and keys.age is None
            await advance(0)
            assert keys.healthy
            for _ in range(3600):
                await advance(1)
                assert keys.age <= REFRESH_SEC[1] + 2
            gaps = [later - earlier for earlier, later in zip(issuer.asked, issuer.asked[1:], strict=False)]
            assert 6 <= len(gaps) <= 12
            assert all(REFRESH_SEC[0] <= gap <= REFRESH_SEC[1] + 2 for gap in gaps)
            assert len({round(gap) for gap in gaps}) > 3  # jitter

    run(main())


def test_a_token_that_comes_before_the_first_keys_waits_for_them():
    async def main():
        issuer = Issuer()
        issuer.free.clear()
        async with keys_from(issuer) as keys:
            waiting = [asyncio.create_task(judge(keys, GOOD)) for _ in range(100)]
            await advance(1)
            assert not any(task.done() for task in waiting)
            waiting[0].cancel()  # a client that gives up takes nothing from the others
            await advance(0)
            issuer.free.set()
            assert await asyncio.gather(*waiting[1:]) == ["ok"] * 99
            assert len(issuer.asked) == 1

    run(main())


def test_without_keys_tokens_are_refused_and_the_first_fetch_is_retried_soon():
    async def main():
        issuer = Issuer(FetchError("down"))
        async with keys_from(issuer) as keys:
            assert await judge(keys, GOOD) == "keys_unavailable"
            for _ in range(60):
                await advance(1)
                assert await judge(keys, GOOD) == "keys_unavailable"
            assert not keys.healthy and 4 <= len(issuer.asked) <= 12
            issuer.document = DOCUMENT
            await advance(COOLDOWN_SEC)
            await advance(0)
            assert keys.healthy
            assert await judge(keys, GOOD) == "ok"

    run(main())


def test_a_rotated_key_is_found_at_its_first_token():
    async def main():
        issuer = Issuer()
        async with keys_from(issuer) as keys:
            assert await judge(keys, GOOD) == "ok"
            issuer.document = ROTATED
            assert await judge(keys, NEW) == "unknown_key"  # within the cooldown
            await advance(COOLDOWN_SEC)
            waiting = [asyncio.create_task(judge(keys, NEW)) for _ in range(100)]
            assert await asyncio.gather(*waiting) == ["ok"] * 100
            assert len(issuer.asked) == 2  # one for the start, one for all of these
            issuer.document = jwks(jwk("ES256", kid="k2"))
            await advance(REFRESH_SEC[1])
            assert len(issuer.asked) == 3 and keys.age == 0
            assert await judge(keys, GOOD) == "unknown_key"  # withdrawn by the issuer
            assert await judge(keys, NEW) == "ok"

    run(main())


def test_a_key_id_that_a_fetch_did_not_bring_is_not_looked_for_again():
    async def main():
        issuer = Issuer()
        async with keys_from(issuer) as keys:
            await advance(0)
            assert keys.healthy
            await advance(COOLDOWN_SEC)
            assert await judge(keys, NEW) == "unknown_key"
            assert len(issuer.asked) == 2
            for _ in range(5):
                await advance(COOLDOWN_SEC + 1)
                assert await judge(keys, NEW) == "unknown_key"
            assert len(issuer.asked) == 2
            issuer.document = ROTATED
            await advance(REFRESH_SEC[1])  # the refresh brings it all the same
            assert len(issuer.asked) == 3 and keys.age == 0
            assert await judge(keys, NEW) == "ok"

    run(main())


def test_a_key_id_missed_while_the_issuer_was_down_is_looked_for_again():
    async def main():
        issuer = Issuer()
        async with keys_from(issuer) as keys:
            await advance(0)
            assert keys.healthy
            issuer.document = FetchError("down")
            await advance(COOLDOWN_SEC)
            assert await judge(keys, NEW) == "unknown_key"
            issuer.document = ROTATED
            await advance(COOLDOWN_SEC)
            assert await judge(keys, NEW) == "ok"

    run(main())


def test_the_operator_can_have_the_keys_fetched():
    async def main():
        issuer = Issuer()
        async with keys_from(issuer) as keys:
            await advance(0)
            assert keys.healthy
            issuer.document = ROTATED
            keys.reload()
            await advance(0)
            assert len(issuer.asked) == 1  # too soon
            await advance(COOLDOWN_SEC)
            keys.reload()
            await advance(0)
            assert len(issuer.asked) == 2 and keys.age == 0
            assert await judge(keys, NEW) == "ok"

    run(main())


def test_a_flood_of_unknown_key_ids_costs_a_fetch_each_thirty_seconds():
    async def main():
        issuer, rng = Issuer(), random.Random(2)
        async with keys_from(issuer) as keys:
            await advance(0)
            assert keys.healthy
            for step in range(10_000):
                asyncio.get_running_loop().advance(0.01)
                kid = f"{rng.getrandbits(64):x}" if step % 2 else f"frequent-{step % 300}"
                with pytest.raises(AuthError, match="no key matches"):
                    await keys.find(kid, "RS256")
                if step % 100 == 0:
                    assert await judge(keys, GOOD) == "ok"
            assert len(keys._absent) <= MAX_ABSENT
            gaps = [later - earlier for earlier, later in zip(issuer.asked, issuer.asked[1:], strict=False)]
            assert gaps and min(gaps) >= COOLDOWN_SEC
            assert len(issuer.asked) <= 1 + 100 / COOLDOWN_SEC + 1

    run(main())


def test_memory_of_absent_key_ids_is_bounded():
    async def main():
        async with keys_from(Issuer()) as keys:
            await advance(0)
            assert keys.healthy
            for number in range(MAX_ABSENT + 50):
                await advance(COOLDOWN_SEC)
                with pytest.raises(AuthError):
                    await keys.find(f"absent-{number}", "RS256")
            assert len(keys._absent) == MAX_ABSENT

    run(main())


@pytest.mark.parametrize(
    "fault",
    [
        FetchError("status 500"),
        b"",
        b"[]",
        b"{",
        b'{"keys":{}}',
        b'{"keys":[]}',
        jwks(jwk("EdDSA", kid="k1")),
        jwks(*[jwk("RS256", kid="k1")] * 9),
        jwks(*[{}] * 65),
    ],
    ids=["status", "empty", "a list", "cut", "no list", "no key", "no key that fits", "one twice", "too many"],
)
def test_an_outage_of_a_day_is_survived_and_no_longer(fault):
    async def main():
        issuer = Issuer()
        async with keys_from(issuer) as keys:
            await advance(0)
            assert keys.healthy
            issuer.document = fault
            began = now()
            while keys.age <= STALE_SEC - 600:
                await advance(600)
                assert await judge(keys, GOOD) == "ok"
            assert not keys.healthy
            await advance(1200)
            assert await judge(keys, GOOD) == "keys_unavailable"
            gaps = [later - earlier for earlier, later in zip(issuer.asked, issuer.asked[1:], strict=False)]
            assert min(gaps) >= COOLDOWN_SEC and now() - began > STALE_SEC
            issuer.document = DOCUMENT
            await advance(2 * COOLDOWN_SEC)
            await advance(0)
            assert keys.healthy
            assert await judge(keys, GOOD) == "ok"

    run(main())


def test_closing_frees_whoever_waits_and_leaves_no_task():
    async def main():
        issuer = Issuer()
        issuer.free.clear()
        keys = JwksKeys(issuer, ["RS256"], rng=random.Random(1))
        assert await judge(keys, GOOD) == "keys_unavailable"  # not started
        keys.start()
        waiting = asyncio.create_task(judge(keys, GOOD))
        await advance(0)
        await keys.aclose()
        assert await waiting == "keys_unavailable"
        assert await judge(keys, GOOD) == "keys_unavailable"
        keys.reload()
        assert asyncio.all_tasks() == {asyncio.current_task()} and len(issuer.asked) == 1

    run(main())


# -- a real server


class Server:
    """An HTTPS server on a free port that gives the same raw answer to everyone."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self.answer = reply(DOCUMENT)
        self.closes = True
        self.requests: list[bytes] = []
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self._context)

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            if not self.closes:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass  # a client that gave up, as some of these tests want it
        finally:
            writer.close()

    def fetch(self, ca_file, path="/keys") -> HttpsFetch:
        return HttpsFetch(net(), f"https://localhost:{self.port}{path}", ca_file)


def reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(parts)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue_cert("localhost", "127.0.0.1")


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.mark.parametrize(
    "answer",
    [
        reply(DOCUMENT),
        chunked(DOCUMENT[:7], DOCUMENT[7:], b""),
        b"HTTP/1.0 200 OK\r\n\r\n" + DOCUMENT,
        b"HTTP/1.1 100 Continue\r\n\r\n" + reply(DOCUMENT),
        reply(DOCUMENT + b" " * (MAX_BODY_BYTES - len(DOCUMENT))),
    ],
    ids=["length", "chunked", "until close", "continue", "largest"],
)
@pytest.mark.parametrize("loop_factory", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_the_document_is_read(certificate, ca_file, answer, loop_factory, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT_SEC", PATIENCE)

    async def main():
        async with Server(certificate) as server:
            server.answer = answer
            body = await server.fetch(ca_file, "/a/keys?p=1")()
            assert body.strip() == DOCUMENT
            [request] = server.requests
            assert request.startswith(b"GET /a/keys?p=1 HTTP/1.1\r\nHost: localhost:%d\r\n" % server.port)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


BAD_ANSWERS = {
    "500": (reply(DOCUMENT, "500 Oops"), "status 500"),
    "redirect": (reply(DOCUMENT, "302 Found", "Location: https://127.0.0.1/keys"), "status 302"),
    "no content": (reply(b"", "204 No Content"), "status 204"),
    "partial": (reply(DOCUMENT, "206 Partial Content"), "status 206"),
    "oversize": (reply(b" " * (MAX_BODY_BYTES + 1)), "larger"),
    "oversize chunks": (chunked(*[b" " * 65536] * 5, b""), "larger"),
    "oversize headers": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20), "larger"),
    "truncated": (reply(DOCUMENT)[:-1], "not whole"),
    "truncated chunks": (chunked(DOCUMENT), "not whole"),
    "wrong chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n", "not whole"),
    "nothing": (b"", "not whole"),
    "not HTTP": (b"\x00\xff" * 100, "not HTTP"),
    "no status": (b"HTTP/1.1 two\r\n\r\n", "not HTTP"),
    "many headers": (reply(DOCUMENT, "200 OK", *["X: y"] * 200), "not HTTP"),
}


@pytest.mark.parametrize(("answer", "says"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer_is_refused(certificate, ca_file, answer, says):
    async def main():
        async with Server(certificate) as server:
            server.answer = answer
            with pytest.raises(FetchError, match=says):
                await server.fetch(ca_file)()
            assert len(server.requests) == 1  # no redirect followed

    run(main())


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nX: drip", reply(DOCUMENT)], ids=["mute", "part", "left open"]
)
def test_a_server_that_does_not_come_to_an_end_is_given_two_seconds(certificate, ca_file, answer):
    async def main():
        async with Server(certificate) as server:
            server.answer, server.closes = answer, False
            fetching = asyncio.create_task(server.fetch(ca_file)())
            await until(lambda: server.requests, look_sec=0)
            await advance(TIMEOUT_SEC - 0.5)
            assert not fetching.done()
            await advance(0.6)
            with pytest.raises(FetchError, match="no answer within 2 s"):
                await fetching

    run(main())


def test_a_server_that_is_not_who_it_should_be_is_refused(authority, certificate, ca_file):
    async def main():
        async with Server(authority.issue_cert("other.example")) as server:
            with pytest.raises(FetchError, match="SSLCertVerificationError"):
                await server.fetch(ca_file)()
        async with Server(certificate) as server:
            with pytest.raises(FetchError, match="SSLCertVerificationError"):
                await server.fetch(None)()  # the system's authorities do not know it
            port = server.port
        assert server.requests == []
        with pytest.raises(FetchError, match="connection failed"):
            await HttpsFetch(net(), f"https://localhost:{port}/", ca_file)()
        with pytest.raises(FetchError, match="connection failed|no answer"):
            await HttpsFetch(net(), "https://no-such-host.invalid/", ca_file)()

    run(main())


def test_the_seam_counts_the_connection_while_it_lasts(authority, certificate, ca_file):
    async def main():
        seam = net()
        async with Server(certificate) as server:
            server.closes = False
            fetching = asyncio.create_task(HttpsFetch(seam, f"https://localhost:{server.port}/", ca_file)())
            await until(lambda: server.requests, look_sec=0)
            assert seam.sockets == 1
            await advance(TIMEOUT_SEC)
            with pytest.raises(FetchError, match="no answer"):
                await fetching
            await until(lambda: seam.sockets == 0, look_sec=0)
        async with Server(authority.issue_cert("other.example")) as server:
            with pytest.raises(FetchError, match="SSLCertVerificationError"):
                await HttpsFetch(seam, f"https://localhost:{server.port}/", ca_file)()
            await advance(0)
            assert seam.sockets == 0

    run(main())


def test_keys_are_fetched_through_a_proxy(certificate, ca_file):
    async def main():
        async with Server(certificate) as server:
            url = f"https://localhost:{server.port}/keys"
            with connect_proxy("Basic dTpw") as proxy:
                way = "http://u:p@{}:{}".format(*proxy.address)
                assert await through(HttpsFetch(net(), url, ca_file, way)) == DOCUMENT
                assert proxy.requests == [f"CONNECT localhost:{server.port} HTTP/1.1"] and len(server.requests) == 1
                with pytest.raises(FetchError, match="status 407"):
                    await through(HttpsFetch(net(), url, ca_file, "http://{}:{}".format(*proxy.address)))
                with pytest.raises(FetchError, match="SSLCertVerificationError"):
                    await through(HttpsFetch(net(), url, None, way))  # the proxy does not vouch for the issuer
            with pytest.raises(FetchError, match="connection failed"):
                await through(HttpsFetch(net(), url, ca_file, way))
        assert len(server.requests) == 1

    run(main())


async def through(fetch: HttpsFetch) -> bytes:
    """What it brings, however long the proxy, which is a thread, takes: the clock of these tests stands still."""
    fetching = asyncio.create_task(fetch())
    await until(fetching.done, look_sec=0)
    return await fetching


def test_the_environment_names_a_proxy_and_whom_it_is_not_for(certificate, ca_file, monkeypatch):
    async def main():
        async with Server(certificate) as server:
            url = f"https://localhost:{server.port}/keys"
            with connect_proxy() as proxy:
                monkeypatch.setenv("https_proxy", "http://{}:{}".format(*proxy.address))
                monkeypatch.delenv("no_proxy", raising=False)
                monkeypatch.delenv("NO_PROXY", raising=False)
                assert await through(HttpsFetch(net(), url, ca_file, "env")) == DOCUMENT
                assert len(proxy.requests) == 1
                assert await through(HttpsFetch(net(), url, ca_file, "off")) == DOCUMENT
                monkeypatch.setenv("no_proxy", "localhost")
                assert await through(HttpsFetch(net(), url, ca_file, "env")) == DOCUMENT
                assert len(proxy.requests) == 1

    run(main())


def test_another_authority_in_the_ca_file_is_taken(certificate, ca_file, tmp_path):
    async def main():
        file = tmp_path / "trusted.pem"
        trustme.CA().cert_pem.write_to_path(file)
        async with Server(certificate) as server:
            fetch = server.fetch(file)
            with pytest.raises(FetchError, match="SSLCertVerificationError"):
                await fetch()
            file.write_bytes(Path(ca_file).read_bytes() + b"\n")
            assert await fetch() == DOCUMENT
            file.write_text("no certificate")
            with pytest.raises(FetchError, match="the CA file cannot be used"):
                await fetch()
            assert await fetch() == DOCUMENT

    run(main())


OUTAGES = {
    "500": (reply(b"", "500 Oops"), True),
    "hang": (b"", False),
    "bad JSON": (reply(b"{"), True),
    "redirect": (reply(b"", "302 Found", "Location: file:///etc/passwd"), True),
}


@pytest.mark.parametrize(("answer", "closes"), OUTAGES.values(), ids=OUTAGES)
def test_an_hour_without_the_issuer_refuses_nobody(certificate, ca_file, answer, closes):
    async def main():
        async with Server(certificate) as server:
            url = f"https://localhost:{server.port}/"
            keys = JwksKeys.from_url(url, ["RS256"], net(), ca_file)
            keys.start()
            assert await judge(keys, GOOD) == "ok" and keys.healthy
            server.answer, server.closes = answer, closes
            for _ in range(36):
                asked = len(server.requests)
                await advance(100)
                assert await judge(keys, GOOD) == "ok"
                if keys._attempt is not None:  # a fetch was due: see it arrive, and end
                    await until(lambda asked=asked: len(server.requests) > asked, look_sec=0)
                    if not closes:
                        await advance(TIMEOUT_SEC)
                    await until(lambda: keys._attempt is None, look_sec=0)
            assert not keys.healthy and len(server.requests) > 25
            server.answer, server.closes = reply(DOCUMENT), True
            await advance(2 * COOLDOWN_SEC)
            await until(lambda: keys.healthy, look_sec=0)
            assert await judge(keys, GOOD) == "ok"
            await keys.aclose()

    run(main())


def test_a_key_that_a_fetch_no_longer_brings_is_told_and_an_absent_issuer_takes_none_away():
    async def main():
        issuer = Issuer(ROTATED)
        async with keys_from(issuer) as keys:
            await advance(0)
            told = []
            keys.on_change = lambda: told.append(now())
            (k1,) = await keys.find("k1", "RS256")
            assert keys.holds(k1)
            issuer.document = FetchError("away")
            await advance(REFRESH_SEC[1])
            assert told == [] and keys.holds(k1)
            issuer.document = jwks(jwk("RS256", kid="another name of the same key"))
            await advance(2 * COOLDOWN_SEC)
            assert len(told) == 1 and keys.holds(k1)
            issuer.document = jwks(jwk("ES256", kid="k1"))
            await advance(REFRESH_SEC[1])
            assert len(told) == 2 and not keys.holds(k1)
            issuer.document = FetchError("away")
            await advance(STALE_SEC + REFRESH_SEC[1])
            assert keys.holds(k1)  # of which nobody can tell any more

    run(main())
