"""Opens without an answer: how many each agent has, our clients' and those that we relay."""

class PendingOpens:
    """Counts by agent and connector; `most` bounds each agent."""

    most: int

    def __init__(self, most: int) -> None: ...
    def full(self, agent: str, connector: str) -> bool:
        """Whether the agent, or this connector of it, has as many as it may."""

    def begin(self, agent: str, connector: str) -> None:
        """An open leaves for the agent."""

    def end(self, agent: str, connector: str) -> None:
        """It is answered, or given up."""

    def __len__(self) -> int:
        """Of all agents."""
