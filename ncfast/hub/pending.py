"""Opens without an answer: how many each agent has, our clients' and those that we relay."""

from __future__ import annotations

from collections import Counter


class PendingOpens:
    """Counts by agent; `most` bounds each, so that a target that hangs is no pile of dials at its agent."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._count: Counter[str] = Counter()

    def full(self, agent: str) -> bool:
        """Whether the agent has as many as it may."""
        return self._count[agent] >= self.most

    def begin(self, agent: str) -> None:
        """An open leaves for the agent."""
        self._count[agent] += 1

    def end(self, agent: str) -> None:
        """It is answered, or given up."""
        self._count[agent] -= 1
        if not self._count[agent]:
            del self._count[agent]

    def __len__(self) -> int:
        """Of all agents."""
        return self._count.total()
