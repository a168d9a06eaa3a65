"""A Redis that lies: entries of hubs that do not exist, with URLs of an attacker's processes; honest hubs at the
address of a relay that passes every byte through; agents that are theirs, under epochs above and below. Hubs may be
shut out by it; no frame of a flow may reach the attacker, and no hub may take them for one.

    python -m tests.simulation.liar --seeds 3

`--plant` puts a bug in, to see that it is found.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ncfast._frames import FrameType, encode
from ncfast.mesh.handshake import Hello, HelloAck
from ncfast.mesh.peer import Peer

from .cluster import MESH_PORT, START, Cluster
from .kernel import Listener, Socket
from .loop import World
from .plan import Plan, draw
from .processes import simulated
from .scenario import files

LIES_EVERY = 0.2  # seconds
FIRST_EVERY = 0.02  # seconds, while hubs look for each other: a link that stands is not dialled again
FIRST = 3.0  # seconds
IMPOSTORS = 3
HEADER = 56
HARMLESS = frozenset({FrameType.HELLO, FrameType.HELLO_ACK, FrameType.PING, FrameType.PONG, FrameType.GOAWAY})


@dataclass(slots=True)
class Told:
    """What came of it: problems, and counts of what was tried, so that a run without any attempt is seen."""

    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Ear:
    """Frames in what comes over one connection."""

    def __init__(self, sock: Socket, told: Callable[[int, bytes], None], passed: Callable[[bytes], None]) -> None:
        self.sock = sock
        self._told = told
        self._passed = passed
        self._data = b""
        sock.notify = self.look

    def look(self) -> None:
        if self.sock.closed:
            return
        try:
            while data := self.sock.receive(65536):
                self._passed(data)
                self._data += data
        except OSError:
            data = b""
        while len(self._data) >= HEADER:
            size = HEADER + int.from_bytes(self._data[4:8])
            if len(self._data) < size:
                break
            frame, self._data = self._data[:size], self._data[size:]
            self._told(frame[0], frame[HEADER:])
        if data == b"":
            self.sock.close()


class Liar:
    """Writes into the cluster's Redis, and listens where its lies lead to."""

    def __init__(self, cluster: Cluster, told: Told) -> None:
        self.cluster = cluster
        self.world: World = cluster.world
        self.told = told
        self.host = cluster.kernel.host("mallory")
        self._listeners = [
            Listener(self.host, 100 + number, lambda sock, number=number: self._impostor(sock, f"evil-{number}"))
            for number in range(IMPOSTORS)
        ]
        self._relays = {
            name: Listener(self.host, 200 + number, lambda sock, name=name: self._relay(sock, name))
            for number, name in enumerate(cluster.plan.shape.hubs)
        }
        self.world.after(0.0, self._lie)

    # lies

    def _lie(self) -> None:
        first = self.world.now - START < FIRST
        self.world.after(FIRST_EVERY if first else LIES_EVERY, self._lie)
        rng, data = self.world.rng, self.cluster.redis.server.data
        lie = rng.choice(["moved"] * 8 * first + ["stranger", "moved", "owner", "owner", "swapped"])
        self.told.counts[lie] += 1
        hubs = self.cluster.plan.shape.hubs
        if lie == "stranger":
            number = rng.randrange(IMPOSTORS)
            self._replica(f"evil-{number}", b"5a" * 8, f"tcp://mallory:{100 + number}")
        elif lie in ("moved", "swapped"):
            name = rng.choice(hubs)
            record = data.replicas.get(name.encode())
            instance = record.split(b"\n")[0] if record and rng.random() < 0.7 else b"5a" * 8
            other = rng.choice(hubs)
            relay = f"mallory:{self._relays[name].port}"
            self._replica(name, instance, f"tcp://{relay if lie == 'moved' else f'{other}:{MESH_PORT}'}")
        elif data.agents:
            key = rng.choice(sorted(data.agents))
            epoch, _, process, body = data.agents[key].split(b"\n", 3)
            owner = rng.choice([*(f"evil-{number}" for number in range(IMPOSTORS)), *hubs]).encode()
            epoch = str(max(int(epoch) + rng.choice([-1, 0, 1, 1000]), 1)).encode()
            process = rng.choice([process, b"5a" * 8])
            data.agents[key] = record = b"\n".join((epoch, owner, process, body))
            data.version += 1
            data.changes[key] = data.version
            said = (b"agent", data.generation, str(data.version).encode(), key, record)
            data.publish(b"\n".join(said))

    def _replica(self, name: str, instance: bytes, url: str) -> None:
        data = self.cluster.redis.server.data
        body = json.dumps({"mesh_url": url, "draining": False, "weight": 100}).encode()
        data.replicas[name.encode()] = b"\n".join((instance, b"1", body))
        data.leases[name.encode()] = data.clock() + 60_000
        data.publish(b"replicas\n" + data.generation)

    # whoever believes them

    def _impostor(self, sock: Socket, name: str) -> None:
        self.told.counts["dialled"] += 1

        def heard(kind: int, body: bytes) -> None:
            if kind == FrameType.HELLO:
                hello = Hello.unpack(body)
                claimed = name if self.world.rng.random() < 0.5 else self.world.rng.choice(self.cluster.plan.shape.hubs)
                ack = HelloAck(
                    version=hello.version,
                    cluster=hello.cluster,
                    replica_id=claimed,
                    instance="5a" * 8,
                    nonce="77" * 32,
                    proof="77" * 32,
                )
                self._send(sock, encode(FrameType.HELLO_ACK, payload=ack.pack()))
            else:
                self._judge(kind, f"the impostor {name}")

        Ear(sock, heard, lambda data: None)

    def _relay(self, sock: Socket, name: str) -> None:
        self.told.counts["relayed"] += 1
        early: list[bytes] = []
        there: list[Socket] = []

        def done(result: Socket | OSError) -> None:
            if isinstance(result, OSError):
                sock.close()
                return
            there.append(result)
            Ear(
                result,
                lambda kind, body: self._judge(kind, f"the relay to {name}"),
                lambda data: self._send(sock, data),
            )
            for data in early:
                self._send(result, data)

        def passed(data: bytes) -> None:
            if there:
                self._send(there[0], data)
            else:
                early.append(data)

        self.cluster.kernel.connect(self.host, name, MESH_PORT, done)
        Ear(sock, lambda kind, body: self._judge(kind, f"the relay to {name}"), passed)

    @staticmethod
    def _send(sock: Socket, data: bytes) -> None:
        try:
            if not sock.closed:
                sock.send(data)
        except OSError:
            sock.close()

    def _judge(self, kind: int, who: str) -> None:
        if kind not in HARMLESS:
            self.told.problems.append(f"at {self.world.now - START:.3f}: frame {kind} reached {who}")

    def inspect(self) -> None:
        """No hub has a link to who is none."""
        for name, process in self.cluster.hubs.items():
            mesh: Any = process.hub.ways.mesh if process.running and process.hub is not None else None
            for peer in mesh.peers if mesh is not None else ():
                if peer.replica_id not in self.cluster.hubs or "mallory" in peer.way.url:
                    self.told.problems.append(f"{name} takes {peer.replica_id} at {peer.way.url} for a hub")
                real = self.cluster.hubs.get(peer.replica_id)
                if real is not None and peer.way.url and f"//{peer.replica_id}:" not in peer.way.url:
                    self.told.problems.append(f"{name} has {peer.replica_id} at {peer.way.url}")


def plan_of(seed: int) -> Plan:
    """A plan of an active cluster that finds its hubs by Redis; the first from the seed on."""
    while True:
        plan = draw(seed)
        if plan.shape.mode == "active" and plan.shape.redis and len(plan.shape.hubs) > 1:
            return replace(plan, shape=replace(plan.shape, mesh_by="registry", mesh_scheme="tcp"))
        seed += 1000


def run(seed: int, seconds: float = 15.0) -> Told:
    """So much virtual time of a cluster whose Redis lies from its first second on."""
    told = Told()
    world = World(seed, None)
    gc.disable()  # as in scenario.run
    try:
        cluster = Cluster(plan_of(seed), world, files())
        liar = Liar(cluster, told)
        with simulated(world, cluster.kernel, lambda process, event, fields: None):
            cluster.start()
            until = START
            while until < START + seconds and not told.problems:
                until += 0.2
                world.run(until)
                liar.inspect()
            for process in (*cluster.processes.values(), *cluster.clones.values()):
                if process.running:
                    process.on_exit = None
                    process.loop.kill()
    finally:
        gc.enable()
    # flows may be refused and lost; what arrives is what was sent, and where it was sent
    told.problems += [text for text in world.problems if "which is no client" in text or "wrong byte" in text]
    return told


PLANTS: dict[str, tuple[type, str, Any]] = {
    "whoever-answers": (Peer, "_proved", lambda self, role, hello, ack, shown: True),
    "any-connection": (Peer, "_meant", lambda self, hello: True),
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plant", choices=PLANTS)
    options = parser.parse_args()
    if options.plant:
        setattr(*PLANTS[options.plant])
    counts: Counter[str] = Counter()
    for seed in range(options.seeds):
        told = run(seed)
        counts += told.counts
        if told.problems:
            print(f"seed {seed}:", *told.problems[:5], sep="\n    ")
            return 1
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
