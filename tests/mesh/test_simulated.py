"""Meshes on a simulated network under a virtual clock: whatever is cut, frozen or killed, one link a pair is left."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mesh.hubs import Hub, secret_file
from tests.simulation.kernel import Kernel
from tests.simulation.loop import Loop, World
from tests.simulation.network import SimNet
from tests.simulation.processes import simulated

NAMES = ("hub-a", "hub-b", "hub-c")
SETTLE = 1.0  # seconds for links to come about where all is well
HEAL = 3.0  # seconds after the last fault: 0.5 s to notice, 0.2 s of pause, kernels' retransmission 2 s
TIDY = 6.0  # and until connections that never became links are gone: 5 s from accept


class World3:
    """Three hubs that list each other."""

    def __init__(self, seed: int, secret: str) -> None:
        self.rng = random.Random(seed)
        self.world = World(seed)
        self.kernel = Kernel(self.world)
        self.secret = secret
        self.hosts = {name: self.kernel.host(name) for name in NAMES}
        self.loops: dict[str, Loop] = {}
        self.hubs: dict[str, Hub] = {}
        for one, other in itertools.permutations(NAMES, 2):
            self.kernel.latency[one, other] = self.rng.choice([0.0001, 0.001, 0.02])

    def start(self, name: str) -> None:
        loop = Loop(self.world, name)
        net = SimNet(loop, self.kernel, self.hosts[name], self.rng.randrange(1 << 30))
        peers = [
            f"tcp://{self.hosts[other].address}:400" for other in NAMES if other != name or self.rng.random() < 0.2
        ]
        mesh = {
            "listen": f"{self.hosts[name].address}:400",
            "peers": peers,
            "secret_file": self.secret,
            "ping_timeout_sec": 0.5,
        }
        hub = Hub(name, mesh, net=net)
        self.loops[name], self.hubs[name] = loop, hub
        loop.create_task(hub.start())

    def kill(self, name: str) -> None:
        """The process is gone; its kernel ends its connections."""
        self.loops[name].kill()
        net = self.hubs[name].net
        for dial in list(net.dials):
            dial.cancel()
        for file in list(net.files.values()):
            file.close()

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def linked(self) -> None:
        """Exactly one link a pair, at both ends the same, dialled by the smaller."""
        for one, other in itertools.combinations(NAMES, 2):
            first, second = self.hubs[one].linked(other), self.hubs[other].linked(one)
            assert first is not None and second is not None, f"{one} and {other} are not linked"
            assert first.dialled and not second.dialled, f"{other}'s dial stays"
            here, there = (peer.link.carrier.transport.get_extra_info("socket").sock for peer in (first, second))
            assert here.address == there.peer_address and here.peer_address == there.address
            assert first.instance == self.hubs[other].instance and second.instance == self.hubs[one].instance

    def tidy(self) -> None:
        """And nothing else is left over."""
        self.linked()
        for name, hub in self.hubs.items():
            assert len(hub.mesh.peers) == 2 and not hub.mesh.door.pending and not hub.mesh._handshakes, name
            assert hub.net.sockets == 2 == len(hub.net.transports), f"{name} has {hub.net.sockets} connections"
            told = {
                other: [event[0] for event in hub.events if event[1] == other and event[0] in ("up", "down")]
                for other in NAMES
            }
            for events in told.values():
                assert events.count("up") - events.count("down") in (0, 1)
            assert set(hub.refused()) <= {"superseded", "timeout"}, hub.refused()
        assert not self.world.problems, self.world.problems


@contextmanager
def world3(seed: int, secret: str) -> Iterator[World3]:
    cluster = World3(seed, secret)
    with simulated(cluster.world, cluster.kernel, lambda process, event, fields: None):
        yield cluster


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    return secret_file(tmp_path_factory.mktemp("mesh") / "secret")


@pytest.mark.parametrize("batch", range(4))
def test_hubs_that_start_together_settle_within_a_second(secret, batch):
    for seed in range(batch * 50, batch * 50 + 50):
        with world3(seed, secret) as cluster:
            for name in cluster.rng.sample(NAMES, 3):
                cluster.start(name)
                cluster.run(cluster.rng.choice([0.0, 0.0001, 0.001, 0.01, 0.1]) * cluster.rng.random())
            cluster.run(SETTLE)
            try:
                cluster.tidy()
            except AssertionError as exc:
                raise AssertionError(f"seed {seed}: {exc}") from exc


def shake(cluster: World3) -> None:
    """A few faults, and the end of all of them."""
    rng, kernel = cluster.rng, cluster.kernel
    blocked, frozen, dead = [], set(), set()
    for _ in range(rng.randint(1, 6)):
        one, other = rng.sample(NAMES, 2)
        what = rng.choice(["one way", "both ways", "reset", "freeze", "kill"])
        if what in ("one way", "both ways"):
            for way in [(one, other)] if what == "one way" else [(one, other), (other, one)]:
                kernel.block(cluster.hosts[way[0]], cluster.hosts[way[1]])
                blocked.append(way)
        elif what == "reset":
            for end in kernel.between(cluster.hosts[one], cluster.hosts[other]):
                kernel.cut_connection(end)
        elif what == "freeze" and one not in dead:
            cluster.loops[one].freeze()
            frozen.add(one)
        elif what == "kill" and one not in frozen:
            cluster.kill(one)
            dead.add(one)
        cluster.run(rng.choice([0.001, 0.1, 1.0]) * rng.random())
    for name in sorted(frozen):
        cluster.loops[name].thaw()
    for name in sorted(dead):
        cluster.start(name)
    for source, target in blocked:
        kernel.unblock(cluster.hosts[source], cluster.hosts[target])


@pytest.mark.parametrize("batch", range(4))
def test_whatever_happens_one_link_a_pair_is_left(secret, batch):
    for seed in range(batch * 25, batch * 25 + 25):
        with world3(seed, secret) as cluster:
            for name in NAMES:
                cluster.start(name)
            cluster.run(SETTLE)
            try:
                for _ in range(3):
                    shake(cluster)
                    cluster.run(HEAL)
                    cluster.linked()
                    cluster.run(TIDY)
                    cluster.tidy()
            except AssertionError as exc:
                raise AssertionError(f"seed {seed}: {exc}") from exc


@pytest.mark.parametrize("way", [("hub-a", "hub-b"), ("hub-b", "hub-a")])
def test_a_one_way_partition_is_noticed_at_both_ends_and_hurts_no_third(secret, way):
    """Liveness needs an answer: hearing the other is not enough."""
    with world3(7, secret) as cluster:
        for name in NAMES:
            cluster.start(name)
        cluster.run(SETTLE)
        third = [cluster.hubs[name].linked("hub-c") for name in ("hub-a", "hub-b")]
        cluster.kernel.block(cluster.hosts[way[0]], cluster.hosts[way[1]])
        cluster.run(1.0)
        assert cluster.hubs["hub-a"].linked("hub-b") is None and cluster.hubs["hub-b"].linked("hub-a") is None
        assert [cluster.hubs[name].linked("hub-c") for name in ("hub-a", "hub-b")] == third
        assert cluster.hubs["hub-a"].mesh.healthy
        cluster.kernel.unblock(cluster.hosts[way[0]], cluster.hosts[way[1]])
        cluster.run(HEAL)
        cluster.linked()
