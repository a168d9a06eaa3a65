"""What is done to the cluster while clients work, each on the same terms: it begins when a quarter of the run is over,
and what was taken away is started again when two thirds are."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.cluster import Cluster, Hub
from bench.rig import Address

STRIKE, BACK = 0.25, 0.65  # shares of a run


@dataclass(frozen=True)
class Roles:
    """The cluster and, of its hubs, the one with the agent's tunnel, and the one where clients come in."""

    made: Cluster
    owner: Hub
    origin: Hub


@dataclass
class Timetable:
    """``marks`` are what has happened, by time.monotonic()."""

    start: float
    sec: float
    marks: list[tuple[float, str]] = field(default_factory=list)

    def until(self, share: float) -> None:
        """Sleeps until so much of the run is over."""
        time.sleep(max(0.0, self.start + share * self.sec - time.monotonic()))

    def mark(self, words: str) -> None:
        self.marks.append((time.monotonic(), words))


@dataclass(frozen=True)
class Fault:
    """``announced`` says what clients may lose by it, with the documents' words; where it is empty, nothing."""

    what: str
    play: Callable[[Roles, Timetable], None]
    addresses: Callable[[Roles], list[Address]]
    announced: str = ""


def _at_origin(roles: Roles) -> list[Address]:
    return [roles.origin.address]


def _failover(roles: Roles, times: Timetable) -> None:
    times.until(STRIKE)
    times.mark("owner killed")
    roles.owner.kill()
    _start(roles.owner, times)


def _start(hub: Hub, times: Timetable) -> None:
    times.until(BACK)
    times.mark("started")  # which takes the CPU of those who work
    hub.start()
    times.mark("ready")


def _drain(hub: Hub, times: Timetable) -> None:
    times.until(STRIKE)
    times.mark("drain")
    hub.stop()
    times.mark("ended")
    _start(hub, times)


def _redis(roles: Roles, times: Timetable) -> None:
    redis = roles.made.registry.process
    times.until(STRIKE)
    times.mark("Redis killed")
    redis.signal(signal.SIGKILL)
    redis.wait()
    times.until(BACK)
    redis.start()
    times.mark("back, empty")


FAULTS = {
    "failover": Fault(
        "The hub that holds the agent's tunnel is killed (SIGKILL). Clients come in at another.", _failover, _at_origin
    ),
    "drain": Fault(
        "The hub that holds the agent's tunnel is drained and ends (SIGTERM), as in a rolling restart. Clients come in "
        "at another.",
        lambda roles, times: _drain(roles.owner, times),
        _at_origin,
    ),
    "redis": Fault(
        "Redis is killed (SIGKILL), and comes back without data. Clients come in at a hub without the tunnel, so each "
        "new flow has to be routed.",
        _redis,
        _at_origin,
    ),
    "own-drain": Fault(
        "The hub where clients come in is drained and ends. They have the other's address, too, and take it when the "
        "first refuses.",
        lambda roles, times: _drain(roles.origin, times),
        lambda roles: [roles.origin.address, roles.owner.address],
        announced="a hub's own clients may finish for `drain.timeout_sec`",
    ),
}
