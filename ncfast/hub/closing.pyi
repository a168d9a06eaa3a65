"""What is done once for each client's flow that is over."""

from ncfast.core.errors import Reason
from ncfast.hub.client import ClientFlow
from ncfast.hub.ground import Ground
from ncfast.hub.opens import Opens

class Closing:
    """It is nobody's any more, it is counted, and it has its line."""

    def __init__(self, ground: Ground, opens: Opens) -> None: ...
    def over(self, flow: ClientFlow, reason: Reason) -> None:
        """The flow has left the hub."""
