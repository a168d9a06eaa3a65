"""Which registry a configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ncfast.registry.base import DistributedRegistry
from ncfast.registry.entry import Replica
from ncfast.registry.memory import MemoryRegistry

if TYPE_CHECKING:
    from ncfast.config.ha import Ha
    from ncfast.net import Net
    from ncfast.stats import Stats


def make_registry(config: Ha, replica: Replica, net: Net, stats: Stats) -> DistributedRegistry:
    """In memory without `redis_url`, in Redis with it. Opens nothing. Raises OSError for a `redis_ca_file` that cannot be used."""
    if not config.enabled or config.redis_url is None:
        return MemoryRegistry(replica, net, stats)
    from ncfast.registry.connection import RedisBackend   # redis-py takes a while to import
    from ncfast.registry.redis import RedisRegistry

    backend = RedisBackend(config.redis_url, config.redis_ca_file, config.redis_timeout_sec, net, config.cluster,
                           f"ncfast-{replica.replica_id}")
    return RedisRegistry(config, replica, net, stats, backend)
