"""`ncfast check --connect` of a hub's file: ports, Redis and the rights there, the issuer, peers."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from mesh.authority import Authority, uri
from support.places import Loopback
from support.prechecked import check
from support.redis_server import RedisServer

# As docs/high-availability.md has it.
COMMANDS = """-@all +ping +eval +evalsha +subscribe +publish +time +get +set
    +hget +hset +hsetnx +hdel +hincrby +hgetall +zadd +zrem +zscore +zrangebyscore""".split()


def file_of(directory: Path, **over: Any) -> dict[str, Any]:
    key = directory / "jwt.key"
    key.write_text("s" * 32)
    key.chmod(0o600)
    return {
        "listeners": [{"name": "l", "bind": "127.0.0.1:0", "connector": "l"}],
        "edge": {"bind": "127.0.0.1:0"},
        "admin": {"bind": "127.0.0.1:0"},
        "auth": {"jwt": {"key_file": str(key)}},
        **over,
    }


def test_ports(tmp_path: Path) -> None:
    seen = check(tmp_path, file_of(tmp_path))
    assert seen.code == 0 and len(seen.rows) == 3 and not seen.failed, seen.out + seen.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        seen = check(tmp_path, file_of(tmp_path, edge={"bind": f"127.0.0.1:{taken.getsockname()[1]}"}))
        assert seen.code == 1 and seen.of("edge.bind") == {"port": "FAIL"}
        assert "in use" in seen.failed["port"] and "(pid " in seen.failed["port"]
        assert seen.of("listeners[0].bind") == seen.of("admin.bind") == {"port": "PASS"}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), Loopback())
    try:
        yield server
    finally:
        server.stop()


def of_redis(url: str) -> dict[str, Any]:
    return {"enabled": True, "mode": "off", "replica_id": "hub-a", "redis_url": url}


@pytest.mark.parametrize(
    ("lacks", "step", "reason"),
    [
        (None, None, ""),
        *((f"-{command}", "rights", "command_denied") for command in ("hdel", "zadd", "publish", "subscribe", "set")),
        ("resetkeys", "rights", "key_denied"),
        ("resetchannels", "rights", "channel_denied"),
        (">other <right", "PING", "unauthorized"),
    ],
)
def test_redis_and_the_rights_there(
    tmp_path: Path, redis: RedisServer, lacks: str | None, step: str | None, reason: str
) -> None:
    host, port = redis.address
    with redis.client() as client:
        rules = ["on", ">right", "resetkeys", "~ncfast:{ncfast}:*", "resetchannels", "&ncfast:{ncfast}:*", *COMMANDS]
        client.execute_command("ACL", "SETUSER", "hub", "reset", *rules, *(lacks or "").split())
    seen = check(tmp_path, file_of(tmp_path, ha=of_redis("redis://hub:${PASSWORD}@%s:%d/0" % (host, port))), PASSWORD)
    if step is None:
        assert seen.code == 0 and seen.of("ha.redis_url") == {"PING": "PASS", "rights": "PASS"}, seen.out + seen.err
    else:
        assert seen.code == 1 and seen.failed == {step: reason}, seen.out + seen.err
        assert ("ACL" if step == "rights" else "user and password") in seen.out
    with redis.client() as client:
        assert all(client.pttl(key) != -1 for key in client.keys()), "what is left goes by itself"


PASSWORD = {"PASSWORD": "right"}


def test_redis_that_is_away(tmp_path: Path) -> None:
    seen = check(tmp_path, file_of(tmp_path, ha=of_redis("redis://127.0.0.1:1/0")))
    assert seen.code == 1 and seen.of("ha.redis_url") == {"PING": "FAIL", "rights": "SKIP"}
    assert "is Redis up" in seen.out


@contextlib.contextmanager
def issuer(document: bytes, directory: Path) -> Iterator[str]:
    """A URL with such a document, and ca.pem in the directory."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: object) -> None: ...

    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}/keys"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("document", "trusted", "says"),
    [
        ({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}, True, ""),
        ({"keys": []}, True, "EdDSA"),
        ({"keys": []}, False, "connection failed"),
    ],
)
def test_the_issuers_keys(tmp_path: Path, document: dict[str, Any], trusted: bool, says: str) -> None:
    with issuer(json.dumps(document).encode(), tmp_path) as url:
        jwt = {"algorithms": ["EdDSA"], "jwks_url": url, "jwks_proxy": "off"}
        ca = {"jwks_ca_file": str(tmp_path / "ca.pem")} if trusted else {}
        seen = check(tmp_path, file_of(tmp_path, auth={"jwt": {**jwt, **ca}}))
    if says:
        assert seen.code == 1 and says in seen.failed["keys"], seen.out + seen.err
    else:
        assert seen.code == 0 and "1 for EdDSA" in seen.out, seen.out + seen.err


@contextlib.contextmanager
def tls_port(pem: Path) -> Iterator[int]:
    """A port that makes TLS handshakes with this certificate, and hears nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = listener.accept()[0]
                with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as secured:
                    secured.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("far", ["well", "expired", "foreign"])
def test_peers(tmp_path: Path, far: str) -> None:
    mesh = Authority(tmp_path)
    own = mesh.issue(uri("hub-a"))
    signer = Authority(tmp_path, "foreign") if far == "foreign" else mesh
    with tls_port(signer.issue(uri("hub-b"), expired=far == "expired")) as port:
        ha = {
            "enabled": True,
            "mode": "active",
            "replica_id": "hub-a",
            "mesh": {
                "listen": "127.0.0.1:0",
                "advertise": "tls://127.0.0.1:1",
                "peers": [f"tls://127.0.0.1:{port}", "tls://127.0.0.1:1"],
                "tls": {"ca_bundle": str(mesh.bundle), "cert_file": str(own), "key_file": str(own)},
            },
        }
        seen = check(tmp_path, file_of(tmp_path, ha=ha))
    assert seen.code == 1 and seen.of("ha.mesh.listen") == {"port": "PASS"}, seen.out + seen.err
    assert "refused" in seen.failed["TCP"]
    verdict = seen.of(f"tls://127.0.0.1:{port}")
    assert verdict == {"DNS": "SKIP", "TCP": "PASS", "TLS": "PASS" if far == "well" else "FAIL"}
    if far == "well":
        assert "URI:ncfast://ncfast/replica/hub-b" in seen.out
