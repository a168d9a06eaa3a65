"""Faults of Redis, and on the way to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from support.redis_server import RedisServer

from .fault import fault
from .stage import Stage


@fault(NcfastRegistryAway=("registry_unhealthy", "registry_lost", "timeout"))
def redis_frozen(stage: Stage) -> Iterator[None]:
    """Redis is frozen (SIGSTOP)."""
    stage.settle()
    redis = stage.cluster.redis
    assert redis is not None
    redis.freeze()
    yield
    redis.thaw()


@fault(NcfastRegistrySlow=("registry_latency_seconds_sum",))
def redis_far(stage: Stage) -> Iterator[None]:
    """Every command of a hub to Redis takes 0.15 s."""
    _, _, third = stage.settle()
    door = stage.cluster.proxies["redis", third]
    door.shape(delay=0.075)
    yield
    door.shape()


@fault(NcfastRegistryErrors=("channel_denied",))
def redis_denies(stage: Stage) -> Iterator[None]:
    """The user of the hubs loses its right to Redis' channels."""
    stage.settle()
    redis = stage.cluster.redis
    assert redis is not None
    with closing(redis.client()) as client:
        client.execute_command("ACL", "SETUSER", "default", "resetchannels")
        yield
        client.execute_command("ACL", "SETUSER", "default", "allchannels")


@fault(NcfastViewsDiffer=("registry_agents",))
def two_registries(stage: Stage) -> Iterator[None]:
    """A hub is restarted with another Redis than the others have."""
    _, _, third = stage.settle()
    other = RedisServer(stage.directory, stage.cluster.places, "redis-2")
    try:
        with stage.restarted(third, {"ha": {"redis_url": "redis://%s:%d/0" % other.address}}):
            yield
    finally:
        other.stop()
