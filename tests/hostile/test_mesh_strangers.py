"""Whoever can write to Redis becomes no hub and gets no byte: real hubs, a real Redis, and one who writes into it."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.cluster import AGENT, Cluster
from support.fault_proxy import FaultProxy
from support.until import PATIENCE, wait_until

from ncfast._frames import FrameType
from ncfast.registry.redis.scripts import KeySpace

NAMES = ("hub-a", "hub-b")
SECRET = b"bytes that are for the service alone"
EVIL = "5a" * 8  # the instance that the attacker claims
HEADER = 56


class Listener:
    """A socket of its own thread; `heard` is what came over all connections."""

    def __init__(self, context: ssl.SSLContext | None = None, path: str = "") -> None:
        self.heard: list[bytes] = []
        self.connections = 0
        self._context = context
        self._sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._sock.bind(path or ("127.0.0.1", 0))
        self._sock.listen(64)
        self.address = self._sock.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._run, args=(sock,), daemon=True).start()

    def _run(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(PATIENCE)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            with sock:
                self.serve(sock)
        except (OSError, EOFError):
            pass

    def serve(self, sock: socket.socket) -> None:
        """Says back what it hears."""
        while data := sock.recv(65536):
            self.heard.append(data)
            sock.sendall(data)

    def close(self) -> None:
        self._sock.close()


class Impostor(Listener):
    """Answers as a hub of this name would that has neither secret nor certificate, and notes all frames. `stood`:
    somebody took it for a hub."""

    def __init__(self, name: str, context: ssl.SSLContext | None = None, path: str = "") -> None:
        self.name = name
        self.stood = 0
        super().__init__(context, path)

    def serve(self, sock: socket.socket) -> None:
        stream = sock.makefile("rb")
        websocket = self._context is not None
        if websocket:
            self._upgrade(sock, stream)
        while True:
            frame = self._message(stream) if websocket else self._frame(stream)
            self.heard.append(frame)
            if frame[0] == FrameType.HELLO:
                hello = json.loads(frame[HEADER:])
                said = {key: hello[key] for key in ("version", "cluster")}
                said |= {"replica_id": self.name, "instance": EVIL, "nonce": "77" * 32, "proof": "77" * 32}
                body = json.dumps(said).encode()
                answer = struct.pack(">BBHI48x", FrameType.HELLO_ACK, 0, 0, len(body)) + body
                sock.sendall(struct.pack(">BBH", 0x82, 126, len(answer)) + answer if websocket else answer)
            elif frame[0] == FrameType.AUTH:
                self.stood += 1

    @staticmethod
    def _read(stream: Any, count: int) -> bytes:
        data = stream.read(count)
        if len(data) < count:
            raise EOFError
        return bytes(data)

    def _frame(self, stream: Any) -> bytes:
        head = self._read(stream, HEADER)
        return head + self._read(stream, int.from_bytes(head[4:8]))

    def _message(self, stream: Any) -> bytes:
        while True:
            head = self._read(stream, 2)
            size = head[1] & 0x7F
            if size >= 126:
                size = int.from_bytes(self._read(stream, 2 if size == 126 else 8))
            mask = self._read(stream, 4)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self._read(stream, size)))
            if head[0] & 15 == 2:
                return data

    def _upgrade(self, sock: socket.socket, stream: Any) -> None:
        key = b""
        while (line := stream.readline(4096)) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"sec-websocket-key":
                key = value.strip()
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )


class Writer:
    """Writes into the cluster's Redis what no hub has said."""

    def __init__(self, cluster: Cluster) -> None:
        self._redis = cluster.redis.client()
        self._prefix = KeySpace("ncfast").prefix

    def replica(self, name: str, url: str, instance: str = EVIL) -> None:
        """As if this hub were there for an hour more."""
        body = json.dumps({"mesh_url": url, "draining": False, "weight": 100})
        self._redis.hset(self._prefix + "replicas", name, f"{instance}\n1\n{body}")
        self._redis.zadd(self._prefix + "leases", {name: time.time() * 1000 + 3_600_000})
        generation = self._redis.hget(self._prefix + "meta", "generation")
        self._redis.publish(self._prefix + "notices", f"replicas\n{generation}")

    def agent(self, owner: str) -> None:
        """As if the agent had gone over to this hub, under an epoch that is far above."""
        key = f"/{AGENT}"
        record = self._redis.hget(self._prefix + "agents", key)
        epoch, _, _, body = record.split("\n", 3)
        higher = int(epoch) + 1_000_000
        version = self._redis.hincrby(self._prefix + "meta", "version", 1)
        self._redis.hset(self._prefix + "agents", key, f"{higher}\n{owner}\n{EVIL}\n{body}")
        self._redis.hset(self._prefix + "epochs", key, str(higher))
        self._redis.zadd(self._prefix + "changes", {key: version})


@pytest.fixture
def service() -> Iterator[Listener]:
    with closing(Listener()) as made:
        yield made


def make(directory: Path, service: Listener, security: Any, proxied: Iterable[str] = (), **mesh: Any) -> Cluster:
    """hub-a owns the agent; hub-b has no tunnel of it."""
    ha = {"ha": {"mesh": mesh}} if mesh else {}
    cluster = Cluster(
        directory,
        {"web": service.address},
        names=NAMES,
        proxied=proxied,
        security=security,
        hub=ha,
        agent={"standby": False},
        agents=False,
    )
    cluster.add_agent(AGENT, first="hub-a")
    return cluster


def exchange(cluster: Cluster, name: str) -> bytes:
    """What a client gets back that says SECRET at this hub; b"" if it was turned away."""
    try:
        with socket.create_connection(cluster.address(name, "web"), PATIENCE) as client:
            client.settimeout(PATIENCE)
            client.sendall(SECRET)
            got = b""
            while len(got) < len(SECRET) and (data := client.recv(4096)):
                got += data
            return got
    except ConnectionError:
        return b""


@pytest.mark.parametrize("security", ["tls", "secret"])
def test_who_writes_to_redis_becomes_no_hub(tmp_path: Path, service: Listener, security: Any) -> None:
    """Entries of hubs that are the attacker's, and then a record by which the agent is theirs."""
    cluster = make(tmp_path, service, security)
    evil: dict[str, Impostor] = {}
    try:
        cluster.wait_ready()
        wait_until(lambda: exchange(cluster, "hub-b") == SECRET, "a flow across the mesh")
        context = None
        if security == "tls":  # an authority that the hub trusts for the web's rule has signed for this address
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            cluster.authority.issue_cert("127.0.0.1").configure_cert(context)
        evil = {
            "evil-tcp": Impostor("evil-tcp"),
            "evil-unix": Impostor("evil-unix", path=str(tmp_path / "evil.sock")),
            **({"evil-wss": Impostor("evil-wss", context)} if context else {}),
        }
        writer = Writer(cluster)
        writer.replica("evil-tcp", "tcp://127.0.0.1:%d" % evil["evil-tcp"].address[1])
        writer.replica("evil-unix", f"unix://{tmp_path}/evil.sock")
        if context:
            writer.replica("evil-wss", "wss://127.0.0.1:%d/mesh" % evil["evil-wss"].address[1])
        for name in NAMES:
            wait_until(lambda name=name: evil.keys() <= cluster.replicas(name).keys(), f"{name} to believe in them")
        dialled = "evil-wss" if context else "evil-tcp"
        wait_until(lambda: evil[dialled].connections >= 2, "both hubs to have tried")
        for owner in evil:
            writer.agent(owner)
            for name in NAMES:
                exchange(cluster, name)
        for name in NAMES:
            up = {peer for peer, row in cluster.links(name).items() if row["state"] == "up"}
            assert up == set(NAMES) - {name}
        for one in evil.values():
            kinds = {frame[0] for frame in one.heard}
            assert not one.stood and kinds <= {FrameType.HELLO, FrameType.PING, FrameType.GOAWAY}
            assert SECRET not in b"".join(one.heard)
        if security == "tls":
            assert not evil["evil-tcp"].connections  # require_mtls holds for the end that dials, too
        assert not evil["evil-unix"].connections
    finally:
        for one in evil.values():
            one.close()
        cluster.close()


def test_one_in_the_middle_gets_no_link(tmp_path: Path, service: Listener) -> None:
    """Redis says that hub-b is at the attacker's relay, which passes every byte through to hub-b. hub-b cannot say
    otherwise meanwhile: it has no way to Redis."""
    cluster = make(tmp_path, service, "secret", proxied=["redis"], peers=[])
    relays: list[FaultProxy] = []
    try:
        cluster.wait_ready()
        wait_until(lambda: cluster.linked("hub-a", "hub-b"), "the honest link")
        relay = FaultProxy(tmp_path, cluster.mesh_address("hub-b"), "mallory")
        relays.append(relay)
        url = "tcp://%s:%d" % relay.address
        hub = cluster.hubs["hub-b"]
        mark = hub.log.mark()
        cluster.proxies["redis", "hub-b"].fault("down")
        wait_until(lambda: hub.log.events("registry_lost", after=mark), "hub-b to be without Redis")
        Writer(cluster).replica("hub-b", url)
        assert cluster.stop("hub-a") == 0  # its next process knows nobody but by Redis
        cluster.start("hub-a")

        def turned_away() -> bool:
            row = cluster.links("hub-a").get("hub-b", {})
            assert not (row.get("state") == "up" and row.get("url") == url), row
            return len(hub.log.events("mesh_refused", after=mark, reason="misdirected")) >= 2

        wait_until(turned_away, "hub-b to turn it away, twice")
    finally:
        for relay in relays:
            relay.stop()
        cluster.close()


def test_urls_of_redis_knock_at_no_other_door(tmp_path: Path, service: Listener) -> None:
    """Whatever path of an HTTP server of the attacker's choice: not one request."""
    cluster = make(tmp_path, service, "secret")
    victim = Listener()
    try:
        cluster.wait_ready()
        writer = Writer(cluster)
        port = victim.address[1]
        writer.replica("evil-0", f"ws://127.0.0.1:{port}/any/path")
        writer.replica("evil-1", f"ws://127.0.0.1:{port}/any/path/mesh")
        writer.replica("evil-2", f"ws://127.0.0.1:{port}/drain?x=/mesh")
        writer.replica("evil-3", f"http://127.0.0.1:{port}/mesh")
        marker = Listener()
        writer.replica("evil-4", f"ws://127.0.0.1:{marker.address[1]}/mesh")  # this one is dialled, after the others
        wait_until(lambda: len(marker.heard) >= 4, "both hubs to have tried twice")
        assert all(data.startswith(b"GET /mesh HTTP/1.1\r\n") for data in marker.heard)
        assert not victim.connections
        marker.close()
    finally:
        victim.close()
        cluster.close()
