"""A flow as the agent knows it."""

from __future__ import annotations


class AgentInfo:
    """What the agent knows of a flow beside its bytes."""

    __slots__ = ("connector", "resumes", "since")

    def __init__(self, connector: str, since: float) -> None:
        self.connector = connector
        self.since = since
        self.resumes = 0
