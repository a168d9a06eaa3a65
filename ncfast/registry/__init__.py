"""Who owns an agent, under which epoch, and which hubs there are: one interface, in memory or in Redis.

It imports nothing of the data plane. What it learns reaches the hub through `DistributedRegistry`'s callbacks.
"""

from ncfast.registry.base import DistributedRegistry
from ncfast.registry.entry import AgentEntry, Replica
from ncfast.registry.factory import make_registry
from ncfast.registry.locks import Lock, Locks
from ncfast.registry.memory import MemoryRegistry
from ncfast.registry.view import View

__all__ = [
    "AgentEntry",
    "DistributedRegistry",
    "Lock",
    "Locks",
    "MemoryRegistry",
    "Replica",
    "View",
    "make_registry",
]
