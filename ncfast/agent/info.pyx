"""A flow as the agent knows it.

Compiled because each flow has one.
"""


cdef class AgentInfo:
    """What the agent knows of a flow beside its bytes."""

    def __init__(self, str connector not None, double since):
        self.connector = connector
        self.since = since
        self.lost_at = -1.0
