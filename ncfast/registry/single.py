"""Who owns an agent, under which epoch: the registry of a single hub, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class _Entry:
    owner: str = ""
    epoch: int = 0
    connectors: set[str] = field(default_factory=set)


class MemoryRegistry:
    """Epochs only grow, also across a restart of the hub: a claim names the last epoch that the agent remembers.

    Agents are kept by `key`, the tenant and the agent id; an entry that was released keeps its epoch.
    """

    def __init__(self) -> None:
        self._agents: dict[str, _Entry] = {}

    def claim_ownership(self, key: str, replica_id: str, at_least: int = 0) -> int:
        """Makes `replica_id` the owner; the new epoch is above the stored one and above `at_least`."""
        entry = self._agents.setdefault(key, _Entry())
        entry.owner = replica_id
        entry.epoch = max(entry.epoch, at_least) + 1
        return entry.epoch

    def release(self, key: str, epoch: int) -> None:
        """Gives up ownership, unless a later claim has been made."""
        entry = self._agents.get(key)
        if entry is not None and entry.epoch == epoch:
            entry.owner = ""

    def get_owner(self, key: str) -> tuple[str, int] | None:
        """(replica, epoch), or None if nobody owns the agent."""
        entry = self._agents.get(key)
        return (entry.owner, entry.epoch) if entry is not None and entry.owner else None
