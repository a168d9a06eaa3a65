"""A flow as the agent knows it."""

from typing import Protocol

class _Connecting(Protocol):
    def give_up(self) -> None: ...

class AgentInfo:
    """What the agent knows of a flow beside its bytes."""

    connector: str
    since: float  # monotonic seconds
    resumes: int
    handovers: int  # from one process of this agent to the next
    lost_at: float  # monotonic seconds: passed by another process, it has had no way since then; or -1
    connecting: _Connecting | None  # the dial that is under way

    def __init__(self, connector: str, since: float) -> None: ...
