"""Prunes what is left of hubs that have gone.

Every hub sweeps. What is to be pruned must look the same in two rounds, a lease apart (two strikes), and the script
looks once more, by the server's clock and by epoch, before it deletes; so two sweepers at once, or one that acts on an
old picture, do no harm. Nothing is struck while the registry is away, and an outage clears all strikes.

Presence goes when its lease has ended and was not renewed between the strikes: a live hub renews it thrice in that
time, so a step of the server's clock prunes nobody. Agents go with their owner's presence, and after it. Their epochs
stay remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Protocol

from ncfast.net.seam import Net
from ncfast.registry.redis.backend import Call
from ncfast.registry.redis.scripts import PRUNE_AGENT, PRUNE_REPLICA, TIDY
from ncfast.registry.view import View

SHORTEST = 5.0  # seconds between two rounds at least
LIMIT = 500  # calls of one kind in a round
TELL_MS = 3_600_000  # for so long `changes` tells that an agent has gone: far longer than anybody reads it in steps
REMEMBER_MS = 7 * 86_400_000  # an epoch outlives its agent's last entry by so long


class Swept(Protocol):
    """What a sweeper needs of a registry."""

    view: View

    @property
    def presences(self) -> Mapping[str, Any]:
        """By replica_id: what the last beat told, also of those whose lease has ended."""

    def is_healthy(self) -> bool: ...
    def send(self, calls: Iterable[Call]) -> None: ...


class RegistrySweeper:
    """`lease` in seconds."""

    def __init__(self, registry: Swept, net: Net, lease: float) -> None:
        self._registry = registry
        self._net = net
        self._every = max(lease, SHORTEST)
        self._strikes: set[Hashable] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._net.spawn(self._sweep(), "registry-sweeper")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._every * self._net.rng.uniform(1.0, 1.5))
            self._registry.send(self.round())

    def round(self) -> list[Call]:
        """The calls that this round makes. Pure, but for the strikes."""
        if not self._registry.is_healthy():
            self._strikes.clear()
            return []
        suspects: dict[Hashable, Call] = {}
        for name, presence in self._registry.presences.items():
            if presence.left < 0:
                suspects["replica", name, presence.replica.instance, presence.ends] = Call(
                    PRUNE_REPLICA, (name, presence.replica.instance, str(presence.ends))
                )
        for key, entry in self._registry.view.agents.items():
            owner = self._registry.presences.get(entry.owner)
            if owner is None or owner.left < 0 or owner.replica.instance != entry.owner_instance:
                suspects["agent", key, entry.epoch] = Call(
                    PRUNE_AGENT, (key, entry.owner, entry.owner_instance, str(entry.epoch))
                )
        calls = [call for mark, call in suspects.items() if mark in self._strikes][:LIMIT]
        self._strikes = set(suspects)
        return [*calls, Call(TIDY, (str(TELL_MS), str(REMEMBER_MS), str(LIMIT)))]
