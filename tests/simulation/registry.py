"""A simulated Redis: the model of its scripts (`tests/registry/model.py`, which is proved equal to them) under the
world's clock.

A hub's messages to it are on their way by the world's time, not by the hub's: a command that has left is carried out
although its hub has frozen, or died, since. One that meets a blocked way is lost, or carried out late, as
retransmission would have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ncfast.config.ha import Ha
from ncfast.net.seam import Net
from ncfast.observe.stats import Stats
from ncfast.registry import DistributedRegistry, Replica, make_registry
from ncfast.registry.redis.registry import RedisRegistry

from ..registry.model import ModelBackend, Server
from .loop import World
from .network import SimNet

LATE_MAX = 3.0  # seconds from the healing of a way to what it had held up, at most


class Redis:
    """The server, and the faults it can have. `clock` gives its wall clock, seconds."""

    def __init__(self, world: World, wall: Callable[[], float], latency: float) -> None:
        self.world = world
        self.latency = latency
        self.extra = 0.0  # seconds added to every message
        self.clock_offset = 0.0  # seconds by which its clock is wrong
        self.cut: dict[str, int] = {}  # by hub: how many faults block the way
        self.deaf: dict[str, int] = {}  # by hub: how many faults swallow notices
        self._held: dict[str, list[Callable[[], None]]] = {}  # by hub: commands that are repeated when the way is open
        self.server = Server(lambda: int((wall() + self.clock_offset) * 1000))

    def make(
        self, config: Ha, replica: Replica, net: Net, stats: Stats, wall_clock: Callable[[], float]
    ) -> DistributedRegistry:
        """What a hub takes for `make_registry`."""
        if not config.enabled or config.redis_url is None:
            return make_registry(config, replica, net, stats, wall_clock)
        assert isinstance(net, SimNet)
        backend = SimBackend(self, net, replica.replica_id)
        return RedisRegistry(config, replica, net, stats, backend, wall_clock)

    def gone(self, net: SimNet) -> None:
        """A hub's process is no more; what it has sent is on its way still."""
        self.server.backends = [one for one in self.server.backends if one.net is not net]

    def die(self, keep: bool) -> None:
        """The server is killed; `keep` says that it will come back with its data."""
        data = dict(vars(self.server.data))
        self.server.kill()
        if keep:
            vars(self.server.data).update(data)

    def block(self, hub: str) -> None:
        self.cut[hub] = self.cut.get(hub, 0) + 1
        self._reach(hub)

    def unblock(self, hub: str) -> None:
        self.cut[hub] -= 1
        self._reach(hub)
        if not self.cut[hub]:
            for message in self._held.pop(hub, []):
                self.world.after(LATE_MAX * self.world.rng.random(), message)

    def _reach(self, hub: str) -> None:
        for backend in self.server.backends:
            if isinstance(backend, SimBackend) and backend.hub == hub:
                backend.reachable = not self.cut[hub]

    def hold(self, hub: str, message: Callable[[], None]) -> None:
        self._held.setdefault(hub, []).append(message)


class SimBackend(ModelBackend):
    """A hub's connections to the simulated Redis."""

    def __init__(self, redis: Redis, net: SimNet, hub: str) -> None:
        super().__init__(redis.server, net)
        self.redis = redis
        self.hub = hub
        self._sim = net
        self.reachable = not redis.cut.get(hub, 0)

    def _later(self, way: str, callback: Callable[..., None], *arguments: Any) -> None:
        redis, world = self.redis, self.redis.world
        if way == "notice" and redis.deaf.get(self.hub, 0) and callback == self._deliver:
            return
        if not self.reachable:
            if way == "there" and world.rng.random() < 0.5:
                redis.hold(self.hub, lambda: self._later(way, callback, *arguments))
            return
        when = max(world.now + redis.latency * (1 + world.rng.random()) + redis.extra, self._last[way])
        self._last[way] = when
        if way == "there":
            world.at(when, callback, *arguments)
        else:
            world.at(when, self._enter, callback, arguments)

    def _enter(self, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if not self._sim.loop.dead:
            self._sim.loop.call_soon(callback, *arguments)
