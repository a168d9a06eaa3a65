"""Opens without an answer: how many each agent has, our clients' and those that we relay."""

from __future__ import annotations

from collections import Counter

LENDING = 3  # a connector has at most three times as many as places are left: alone, three quarters of all


class PendingOpens:
    """Counts by agent and connector; `most` bounds each agent, so that a target that hangs is no pile of dials there.

    A connector may take `LENDING` times what is left (as `ncfast.core.budget` lends memory): if its target hangs, there
    are places for the agent's others, and for more of them if one of those hangs, too.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._total: Counter[str] = Counter()
        self._count: Counter[tuple[str, str]] = Counter()

    def full(self, agent: str, connector: str) -> bool:
        """Whether the agent, or this connector of it, has as many as it may."""
        left = self.most - self._total[agent]
        return left <= 0 or self._count[agent, connector] >= LENDING * left

    def begin(self, agent: str, connector: str) -> None:
        """An open leaves for the agent."""
        self._total[agent] += 1
        self._count[agent, connector] += 1

    def end(self, agent: str, connector: str) -> None:
        """It is answered, or given up."""
        self._total[agent] -= 1
        self._count[agent, connector] -= 1
        if not self._total[agent]:
            del self._total[agent]
        if not self._count[agent, connector]:
            del self._count[agent, connector]

    def __len__(self) -> int:
        """Of all agents."""
        return self._total.total()
