"""Whether a new flow may be opened on a tunnel, and what else each flow asks of it."""

from ncfast.auth.identity import Identity
from ncfast.core.link import Link
from ncfast.hub.ground import Ground

class Serving:
    """At the hub's end of a tunnel. Until it owns it serves nothing."""

    _ground: Ground
    identity: Identity
    @property
    def key(self) -> str: ...
    instance: str  # of the agent's process; "" before HELLO
    epoch: int
    connectors: frozenset[str]  # announced and within the token's scope
    owns: bool  # the agent is this hub's, by this tunnel: with the state
    draining: bool  # whatever the state: the agent has said GOAWAY
    packed_open: bool  # reads that form of M_OPEN
    link: Link  # set by the edge before any frame can come

    def __init__(self, ground: Ground, identity: Identity) -> None: ...
    def serves(self, tenant: str | None, connector: str) -> bool:
        """Whether a new flow may be opened here: announced, within the token's scope and lifetime, not leaving."""
