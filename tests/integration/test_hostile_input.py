"""Bad input at every door: the offender is closed, nobody else is touched, memory stays bounded."""

from __future__ import annotations

import json
import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

import jwt
import pytest
from support.bystander import Bystander
from support.peer import Peer, is_refused
from support.raw_tunnel import (
    BINARY,
    CONTINUATION,
    PING,
    TEXT,
    RawTunnel,
    upgrade_request,
    ws_frame,
    ws_header,
)
from support.topology import MakeTopology, Topology
from support.until import PATIENCE, wait_until

from ncfast._frames import HEADER_SIZE, FrameType, decode, encode
from ncfast.core.errors import Reason, close_code

MIB = 1 << 20
UNLIMITED = {"edge": {"handshakes_per_source_per_sec": 0, "handshake_timeout_sec": 2}}


@pytest.fixture(scope="module")
def fort(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """One hub for all attacks, with an honest agent beside the attackers."""
    made = Topology(tmp_path_factory.mktemp("fort"), {"peer": peer.address}, hub=UNLIMITED)
    yield made
    made.check()
    made.close()


@pytest.fixture
def bystander(request: pytest.FixtureRequest, fort: Topology, peer: Peer) -> Iterator[Bystander]:
    request.node.topologies = [fort]
    agents = len(fort.hub.status()["agents"])
    with Bystander(fort, peer) as running:
        yield running
    wait_until(lambda: len(fort.hub.status()["agents"]) == agents, "only the honest agent left")


def raw(fort: Topology) -> RawTunnel:
    return RawTunnel(fort.hub.edge)


def joined(fort: Topology, agent_id: str = "mallory") -> RawTunnel:
    """A tunnel with a valid token and a valid HELLO: an insider."""
    tunnel = raw(fort).upgrade(fort.token(agent_id))
    tunnel.send(ws_frame(hello(agent_id)))
    opcode, answer = tunnel.message()
    while answer[0] == FrameType.PING:  # the hub may measure the round trip first
        opcode, answer = (opcode, answer[HEADER_SIZE:]) if len(answer) > HEADER_SIZE else tunnel.message()
    assert opcode == BINARY and answer[0] == FrameType.HELLO_ACK, (opcode, answer)
    return tunnel


def hello(agent_id: str, **fields: object) -> bytes:
    body = {"version": 1, "agent_id": agent_id, "instance": "0" * 32, "connectors": [], "window": 1 << 18}
    return encode(FrameType.HELLO, payload=json.dumps({**body, **fields}).encode())


# --- bytes that are not even HTTP


@pytest.mark.parametrize("door", ["edge", "admin", "listener"])
def test_random_bytes_at_every_door(fort: Topology, bystander: Bystander, door: str) -> None:
    address = {"edge": fort.hub.edge, "admin": fort.hub.admin, "listener": fort.address("peer")}[door]
    rng = random.Random(7)
    for number in range(60):
        with RawTunnel(address) as attacker:
            attacker.send(rng.randbytes(rng.choice([1, 7, 100, 5000, 100_000])) + b"\r\n\r\n\n")
            if number % 2:
                with suppress(OSError):  # it was reset before
                    attacker.sock.shutdown(socket.SHUT_WR)
            attacker.closed()
    bystander.goes_on()


def test_other_protocols_at_the_edge(fort: Topology, bystander: Bystander) -> None:
    greetings = {
        "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
        "proxy": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "a line without end": b"GET /" + b"a" * 200_000,
        "http/0.9": b"GET /tunnel\r\n",
        "nothing but newlines": b"\r\n" * 10_000,
        "bare CR and LF": b"GET /healthz HTTP/1.1\nHost: x\n\n",
        "NUL": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    for name, greeting in greetings.items():
        with raw(fort) as attacker:
            attacker.send(greeting)
            said = attacker.closed()
            assert b" 101 " not in said and b" 200 " not in said, name
    with socket.create_connection(fort.hub.edge, timeout=PATIENCE) as tcp, pytest.raises((ssl.SSLError, OSError)):
        ssl._create_unverified_context().wrap_socket(tcp)
    bystander.goes_on()


def test_handshakes_that_never_end(fort: Topology, bystander: Bystander) -> None:
    """100 clients drip a header; they are closed in time, and an honest agent joins meanwhile."""
    drips = [raw(fort) for _ in range(100)]
    head = upgrade_request("x" * 100)
    for attacker in drips:
        attacker.send(head[:40])
    late = fort.add_agent("late-but-honest")
    waiting = {drip.sock: drip for drip in drips}
    for drip in drips:
        drip.sock.setblocking(False)
    deadline = time.monotonic() + PATIENCE
    position = 40
    while waiting:
        assert time.monotonic() < deadline, f"{len(waiting)} dripping clients are still connected"
        for sock in list(waiting):
            try:
                sock.send(head[position : position + 1])
                if sock.recv(4096):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            waiting.pop(sock).sock.close()
        position = min(position + 1, len(head) - 2)
        time.sleep(0.05)  # the attack's own pace
    assert late.stop() == 0
    fort.agents.remove(late)
    bystander.goes_on()


# --- HTTP that is refused


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    base = {"sub": "mallory", "aud": "nowconnect", "iss": "x", "iat": now, "exp": now + 600}
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def bad_tokens(key: str) -> dict[str, str]:
    """Tokens that must all be refused, by what is wrong with them."""
    now = int(time.time())
    return {
        "expired": jwt.encode(claims(iat=now - 7200, exp=now - 3600), key),
        "wrong key": jwt.encode(claims(), "another key that is long enough for HS256 to be taken"),
        "alg none": jwt.encode(claims(), None, algorithm="none"),
        "wrong audience": jwt.encode(claims(aud="someone-else"), key),
        "no audience": jwt.encode(claims(aud=None), key),
        "no expiry": jwt.encode(claims(exp=None), key),
        "lives too long": jwt.encode(claims(exp=now + 864_000), key),
        "from the future": jwt.encode(claims(nbf=now + 3600), key),
        "no subject": jwt.encode(claims(sub=None), key),
        "subject with a newline": jwt.encode(claims(sub="a\nb"), key),
        "not a token": "hello",
        "empty": "",
        "HS384": jwt.encode(claims(), key, algorithm="HS384"),
        "crit": jwt.encode(claims(), key, headers={"crit": ["x"], "x": 1}),
        "two dots": "..",
        "7 KiB of letters": "a" * 7000,
    }


def test_tokens_that_are_no_good(fort: Topology, bystander: Bystander) -> None:
    before = fort.hub.metric("nowconnect_auth_failed_total")
    tokens = bad_tokens(fort.key_file.read_text())
    for name, token in tokens.items():
        with raw(fort) as attacker:
            attacker.send(upgrade_request(token))
            status, head = attacker.head()
            assert status == 401, (name, head)
            attacker.closed()
    with raw(fort) as attacker:
        attacker.send(upgrade_request(None))
        assert attacker.head()[0] == 401
    assert fort.hub.metric("nowconnect_auth_failed_total") >= before + len(tokens)
    failed = fort.hub.log.wait("auth_failed")
    assert failed["security"] is True and failed["reason"], failed
    text = fort.hub.program.err_path.read_text()
    assert not any(token in text for token in tokens.values() if len(token) > 30), "a token is in the log"


PLAIN = ("Upgrade", "Connection")
REFUSALS = {
    "origin: a browser": ({"headers": ("Origin: https://evil.example",)}, {403}),
    "token in the query": ({"path": "/tunnel?token=abc", "anonymous": True}, {400}),
    "unknown path": ({"path": "/nothing"}, {404}),
    "POST": ({"method": "POST"}, {400, 405}),
    "no upgrade": ({"without": PLAIN}, {400, 426}),
    "no key": ({"without": ("Sec-WebSocket-Key",)}, {400}),
    "no version": ({"without": ("Sec-WebSocket-Version",)}, {400, 426}),
    "with a body": ({"headers": ("Content-Length: 5",)}, {400}),
    "chunked": ({"headers": ("Transfer-Encoding: chunked",)}, {400}),
    "header too long": ({"headers": ("X-Long: " + "a" * 9000,)}, {400, 431}),
    "too many headers": ({"headers": tuple(f"X-{n}: y" for n in range(100))}, {400, 431}),
    "two tokens": ({"headers": ("Authorization: Bearer x",)}, {400, 401}),
    "basic": ({"anonymous": True, "headers": ("Authorization: Basic YTpi",)}, {401}),
    "folded header": ({"headers": ("X-A: b", " c")}, {400}),
    "space before the colon": ({"headers": ("X-A : b",)}, {400}),
    "absolute path": ({"path": "http://evil.example/tunnel"}, {400, 404}),
    "dots": ({"path": "/healthz/../tunnel"}, {400, 404}),
    "metrics on the public edge": ({"path": "/metrics", "without": PLAIN}, {404}),
    "status on the public edge": ({"path": "/status", "without": PLAIN}, {404}),
    "drain on the public edge": ({"path": "/drain", "method": "POST", "without": PLAIN}, {404, 405}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_requests_that_are_refused(fort: Topology, name: str) -> None:
    options, expected = REFUSALS[name]
    options = dict(options)
    token = None if options.pop("anonymous", False) else fort.token("mallory")
    with raw(fort) as attacker:
        attacker.send(upgrade_request(token, **options))
        status, head = attacker.head()
        assert status in expected, head
        attacker.closed()


def test_header_of_a_mebibyte_costs_no_memory(fort: Topology, bystander: Bystander) -> None:
    fort.hub.program.reset_peak()
    base = fort.hub.program.rss()
    attackers = [raw(fort) for _ in range(50)]
    for attacker in attackers:
        attacker.send(upgrade_request("a" * MIB))
    for attacker in attackers:
        with attacker:
            assert b" 101 " not in attacker.closed()
    assert fort.hub.program.peak_rss() - base < 32 * MIB


def test_compression_is_not_negotiated(fort: Topology) -> None:
    with raw(fort) as tunnel:
        offer = ("Sec-WebSocket-Extensions: permessage-deflate",)
        tunnel.send(upgrade_request(fort.token("mallory"), headers=offer))
        status, head = tunnel.head()
        assert status == 101 and b"deflate" not in head.lower(), head


def test_one_source_may_not_shake_hands_without_limit(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, hub={"edge": {"handshakes_per_source_per_sec": 1}})
    with Bystander(made, peer):
        statuses = []
        for _ in range(40):
            with RawTunnel(made.hub.edge) as attacker:
                attacker.send(upgrade_request("x"))
                statuses.append(attacker.head()[0])
        assert set(statuses) - {401}, "forty at once, and none was turned away"
        assert 401 in statuses
        assert made.hub.metric("nowconnect_handshakes_refused_total") > 0


# --- WebSocket that breaks its rules (RFC 6455), from someone with a valid token


BROKEN_MESSAGES = {
    "unmasked": (ws_frame(b"x" * 56, masked=False), {1002}),
    "reserved bit": (ws_frame(b"x" * 56, rsv=4), {1002}),
    "reserved opcode": (ws_frame(b"x", opcode=3), {1002}),
    "text": (ws_frame(b"hello", TEXT), {1002, 1003, 1008}),
    "text that is not UTF-8": (ws_frame(b"\xff\xfe", TEXT), {1002, 1003, 1007, 1008}),
    "ping too long": (ws_frame(b"x" * 126, PING), {1002}),
    "ping in fragments": (ws_frame(b"x", PING, fin=False), {1002}),
    "continuation of nothing": (ws_frame(b"x", CONTINUATION), {1002}),
    "a message of 2**62 bytes": (ws_header(1 << 62) + b"x" * 100, {1009, 1002}),
    "length with its top bit set": (ws_header((1 << 64) - 1) + b"x" * 100, {1002, 1009}),
    "a message of 100 MiB": (ws_header(100 * MIB) + b"x" * 100, {1009}),
}


@pytest.mark.parametrize("stage", ["before hello", "after hello"])
@pytest.mark.parametrize("name", BROKEN_MESSAGES)
def test_websocket_rules_are_enforced(fort: Topology, bystander: Bystander, name: str, stage: str) -> None:
    data, codes = BROKEN_MESSAGES[name]
    with joined(fort) if stage == "after hello" else raw(fort).upgrade(fort.token("mallory")) as tunnel:
        tunnel.send(data)
        assert tunnel.close_code() in codes
    bystander.goes_on()


def test_endless_fragments(fort: Topology, bystander: Bystander) -> None:
    with joined(fort) as tunnel:
        tunnel.send(ws_frame(b"x", fin=False) + ws_frame(b"x", CONTINUATION, fin=False) * 20_000)
        assert tunnel.close_code() in {1002, 1008, 1009, None}
    bystander.goes_on()


def test_messages_announced_and_dripped_cost_no_memory(fort: Topology, bystander: Bystander) -> None:
    base = fort.hub.program.rss()
    fort.hub.program.reset_peak()
    tunnels = [joined(fort, f"mallory-{n}") for n in range(40)]
    for tunnel in tunnels:
        tunnel.send(ws_header(MIB) + b"x" * 10)
    bystander.goes_on()
    assert fort.hub.program.peak_rss() - base < 16 * MIB
    for tunnel in tunnels:
        tunnel.sock.close()


# --- frames that break ours


CID = bytes(range(16))


def header(kind: int, *, flags: int = 0, code: int = 0, length: int = 0, seq: int = 0) -> bytes:
    """A frame header with whatever it says, which ``encode`` would refuse to make."""
    return (
        bytes([kind, flags])
        + code.to_bytes(2)
        + length.to_bytes(4)
        + (1).to_bytes(8)
        + CID
        + seq.to_bytes(8)
        + (0).to_bytes(8)
        + (1 << 20).to_bytes(8)
    )


BROKEN_FRAMES = {
    "noise": random.Random(3).randbytes(5000),
    "unknown type": header(200),
    "unknown flags": header(FrameType.M_DATA, flags=0xF0, length=1) + b"x",
    "4 GiB of data": header(FrameType.M_DATA, length=0xFFFF_FFFF),
    "a control frame of 1 MiB": header(FrameType.M_OPEN, length=MIB),
    "sequence beyond 2**62": header(FrameType.M_DATA, length=1, seq=(1 << 63)) + b"x",
    "HELLO again, not JSON": header(FrameType.HELLO, length=3) + b"{{{",
    "HELLO_ACK from an agent": header(FrameType.HELLO_ACK, length=2) + b"{}",
    "ANNOUNCE that is not JSON": header(FrameType.ANNOUNCE, length=3) + b"{{{",
    "ANNOUNCE of the wrong shape": header(FrameType.ANNOUNCE, length=9) + b'{"a":[1]}',
    "MOVE without a hub": header(FrameType.MOVE, length=2) + b"{}",
}


@pytest.mark.parametrize("name", BROKEN_FRAMES)
def test_broken_frames_end_their_own_tunnel(fort: Topology, bystander: Bystander, name: str) -> None:
    with joined(fort) as tunnel:
        tunnel.send(ws_frame(BROKEN_FRAMES[name]))
        assert tunnel.close_code() == close_code(Reason.PROTOCOL_ERROR)
    bystander.goes_on()


@pytest.mark.parametrize(
    "behind", [b"x", b'{"agent": "another"}', bytes(16368)], ids=["a byte", "JSON", "as much as fits"]
)
def test_an_agent_has_no_words_behind_the_secret(fort: Topology, bystander: Bystander, behind: bytes) -> None:
    """Between hubs the owner says there who asks."""
    with raw(fort).upgrade(fort.token("mallory")) as tunnel:
        tunnel.send(ws_frame(hello("mallory")))
        epoch = decode(tunnel.message()[1])[3]
        tunnel.send(ws_frame(encode(FrameType.M_RESUME, cid=CID, epoch=epoch, payload=bytes(16) + behind)))
        assert tunnel.close_code() == close_code(Reason.PROTOCOL_ERROR)
    bystander.goes_on()


@pytest.mark.parametrize("token", [b"xyz", b"\xff\xfe", b"a.b.c" * 2000], ids=["short", "not UTF-8", "long"])
def test_refreshed_token_that_is_none_is_refused(fort: Topology, bystander: Bystander, token: bytes) -> None:
    """The old one goes on to count, until its own end."""
    with joined(fort) as tunnel:
        tunnel.send(ws_frame(encode(FrameType.AUTH, payload=token)))
        frame = b""
        while not frame or frame[0] != FrameType.AUTH:
            opcode, frame = tunnel.message()
            assert opcode == BINARY, opcode
        assert decode(frame)[2] == Reason.UNAUTHORIZED
    bystander.goes_on()


BROKEN_HELLOS = {
    "noise": random.Random(4).randbytes(300),
    "no HELLO but data": header(FrameType.M_DATA, length=1) + b"x",
    "not JSON": header(FrameType.HELLO, length=3) + b"{{{",
    "not an object": header(FrameType.HELLO, length=2) + b"[]",
    "empty": header(FrameType.HELLO),
    "a window of nothing": hello("mallory", window=0),
    "a thousand connectors": hello("mallory", connectors=["c"] * 1000),
    "another version": hello("mallory", version=999),
    "someone else": hello("site-1"),
    "connectors of the wrong type": hello("mallory", connectors={"a": 1}),
    "connector with a newline": hello("mallory", connectors=["a\nb"]),
    "a negative epoch": hello("mallory", last_epoch=-1),
    "an epoch beyond 64 bits": hello("mallory", last_epoch=1 << 70),
}


@pytest.mark.parametrize("name", BROKEN_HELLOS)
def test_broken_hello_is_refused(fort: Topology, bystander: Bystander, name: str) -> None:
    with raw(fort).upgrade(fort.token("mallory")) as tunnel:
        tunnel.send(ws_frame(BROKEN_HELLOS[name]))
        reasons = (Reason.PROTOCOL_ERROR, Reason.UNAUTHORIZED, Reason.VERSION, Reason.HANDSHAKE_TIMEOUT)
        assert tunnel.close_code() in map(close_code, reasons)
    bystander.goes_on()


def test_frames_for_flows_that_do_not_exist(fort: Topology, bystander: Bystander) -> None:
    """Late frames are a fact of life; many of them are an attack; either way nobody else is touched."""
    kinds = (FrameType.M_ACK, FrameType.M_FIN, FrameType.M_RST, FrameType.M_OPEN_ACK)
    with joined(fort) as tunnel:
        frames = encode(FrameType.M_DATA, cid=CID, epoch=1, payload=b"x")
        frames += b"".join(encode(kind, cid=CID, epoch=1) for kind in kinds)
        for _ in range(200):
            tunnel.send(ws_frame(frames * 10))
        bystander.goes_on()


@pytest.mark.parametrize("kind", ["PING", "PONG", "M_ACK", "M_RST", "ANNOUNCE", "GOAWAY"])
def test_floods_end_the_tunnel_that_floods(fort: Topology, bystander: Bystander, kind: str) -> None:
    base = fort.hub.program.rss()
    fort.hub.program.reset_peak()
    payload = b'{"connectors":[]}' if kind == "ANNOUNCE" else b""
    frame = encode(FrameType[kind], payload=payload, **({"cid": CID} if kind.startswith("M_") else {}))
    flood = ws_frame(frame * 500)
    with joined(fort) as tunnel:
        for _ in range(200):
            tunnel.send(flood)
        assert tunnel.close_code() in {close_code(Reason.FLOOD), None}  # None: our own bytes were in its way
    bystander.goes_on()
    assert fort.hub.program.peak_rss() - base < 32 * MIB


# --- scopes


def test_connector_outside_the_tokens_scope_is_not_served(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address, "armed": peer.armed_address}, agents=0, listener={"hold_sec": 0})
    made.add_agent("site-1", token=made.token("site-1", connectors=["peer"]), wait=False)
    denied = made.hub.log.wait("scope_denied")
    assert denied["security"] is True and denied["connector"] == "armed", denied
    assert is_refused(made.address("armed"))


def test_agent_of_another_tenant_does_not_serve_a_listener(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, agents=0, listener={"hold_sec": 0, "tenant": "acme"})
    made.add_agent("site-1", token=made.token("site-1", tenant="other"))
    assert is_refused(made.address("peer"))
    made.add_agent("site-2", token=made.token("site-2", tenant="acme"))
    with Bystander(made, peer):
        pass
