"""What is done once for each flow that is over."""

from ncfast.agent.ground import Ground
from ncfast.agent.info import AgentInfo
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow

class Closing:
    """Its dial is given up, it is counted, and it has its line."""

    def __init__(self, ground: Ground) -> None: ...
    def over(self, flow: Flow[AgentInfo], reason: Reason) -> None:
        """The flow has left the agent."""
