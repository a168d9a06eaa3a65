"""Whether a new flow may be opened on a tunnel, and what else each flow asks of it.

Compiled because each flow that is opened asks. `ncfast.hub.session` adds the tunnel's frames and states.
"""


cdef class Serving:
    """At the hub's end of a tunnel. Until it owns it serves nothing."""

    def __init__(self, ground not None, identity not None):
        self._ground = ground
        self._locks = ground.locks
        self.identity = identity
        self.key = identity.key
        self.instance = ""
        self.epoch = 0
        self.connectors = frozenset()

    cpdef bint serves(self, tenant, str connector) except -1:
        """Whether a new flow may be opened here: announced, within the token's scope and lifetime, not leaving."""
        identity = self.identity
        return (
            self.owns
            and not self.draining
            and self.key not in self._locks
            and tenant == identity.tenant
            and connector in self.connectors
            and identity.allows(connector)
            and self._ground.wall_clock() < identity.expires_at
        )
