"""Which registry a configuration asks for."""

from __future__ import annotations

import time
from collections.abc import Callable

from ncfast.config.ha import Ha
from ncfast.net.seam import Net
from ncfast.observe.stats import Stats
from ncfast.registry.base import DistributedRegistry
from ncfast.registry.entry import Replica
from ncfast.registry.memory import MemoryRegistry


def make_registry(
    config: Ha, replica: Replica, net: Net, stats: Stats, wall_clock: Callable[[], float] = time.time
) -> DistributedRegistry:
    """In memory without `redis_url`, in Redis with it. Opens nothing. Raises OSError for a file of Redis's that cannot
    be used."""
    if not config.enabled or config.redis_url is None:
        return MemoryRegistry(replica, net, stats, wall_clock)
    from ncfast.registry.redis.connection import RedisBackend  # redis-py takes a while to import
    from ncfast.registry.redis.registry import RedisRegistry

    backend = RedisBackend(config.redis_url, config, net, f"ncfast-{replica.replica_id}")
    return RedisRegistry(config, replica, net, stats, backend, wall_clock)
