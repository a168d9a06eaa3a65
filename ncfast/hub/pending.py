"""Opens without an answer: how many each agent has, our clients' and those that we relay."""

from __future__ import annotations

LENDING = 3  # a connector has at most three times as many as places are left: alone, three quarters of all


class PendingOpens:
    """Counts by agent and connector; `most` bounds each agent, so that a target that hangs is no pile of dials there.

    A connector may take `LENDING` times what is left (as `ncfast.core.budget` lends memory): if its target hangs, there
    are places for the agent's others, and for more of them if one of those hangs, too.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._total: dict[str, int] = {}
        self._count: dict[tuple[str, str], int] = {}

    def full(self, agent: str, connector: str) -> bool:
        """Whether the agent, or this connector of it, has as many as it may."""
        left = self.most - self._total.get(agent, 0)
        return left <= 0 or self._count.get((agent, connector), 0) >= LENDING * left

    def begin(self, agent: str, connector: str) -> None:
        """An open leaves for the agent."""
        one = (agent, connector)
        self._total[agent] = self._total.get(agent, 0) + 1
        self._count[one] = self._count.get(one, 0) + 1

    def end(self, agent: str, connector: str) -> None:
        """It is answered, or given up."""
        one = (agent, connector)
        if left := self._total[agent] - 1:
            self._total[agent] = left
        else:
            del self._total[agent]
        if left := self._count[one] - 1:
            self._count[one] = left
        else:
            del self._count[one]

    def __len__(self) -> int:
        """Of all agents."""
        return sum(self._total.values())
