"""A flow as the agent knows it."""

from __future__ import annotations

from typing import Protocol


class _Connecting(Protocol):
    def give_up(self) -> None: ...


class AgentInfo:
    """What the agent knows of a flow beside its bytes."""

    __slots__ = ("connecting", "connector", "handovers", "lost_at", "resumes", "since")

    def __init__(self, connector: str, since: float) -> None:
        self.connector = connector
        self.since = since
        self.resumes = 0
        self.handovers = 0  # from one process of this agent to the next
        self.lost_at = -1.0  # passed by another process, it has had no way since then
        self.connecting: _Connecting | None = None  # the dial that is under way
