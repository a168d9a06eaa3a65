"""Opens without an answer: how many each agent has, our clients' and those that we relay."""

cdef enum:
    LENDING = 3                # a connector has at most three times as many as places are left: alone, three quarters


cdef class PendingOpens:
    """Counts by agent and connector; `most` bounds each agent, so that a target that hangs is no pile of dials there.

    A connector may take `LENDING` times what is left (as `ncfast.core.budget` lends memory): if its target hangs, there
    are places for the agent's others, and for more of them if one of those hangs, too.
    """

    def __init__(self, int most):
        self.most = most
        self._total = {}
        self._count = {}

    cpdef bint full(self, str agent, str connector) except -1:
        """Whether the agent, or this connector of it, has as many as it may."""
        cdef int left = self.most
        if not self._total:
            return left <= 0
        left -= <int>self._total.get(agent, 0)
        return left <= 0 or <int>self._count.get((agent, connector), 0) >= LENDING * left

    cpdef begin(self, str agent, str connector):
        """An open leaves for the agent."""
        one = (agent, connector)
        self._total[agent] = <int>self._total.get(agent, 0) + 1
        self._count[one] = <int>self._count.get(one, 0) + 1

    cpdef end(self, str agent, str connector):
        """It is answered, or given up."""
        cdef int left
        one = (agent, connector)
        left = <int>self._total[agent] - 1
        if left:
            self._total[agent] = left
        else:
            del self._total[agent]
        left = <int>self._count[one] - 1
        if left:
            self._count[one] = left
        else:
            del self._count[one]

    def __len__(self):
        """Of all agents."""
        return sum(self._total.values())
