"""A flow as the agent knows it."""


cdef class AgentInfo:
    cdef public str connector
    cdef public double since         # monotonic seconds
    cdef public int resumes
    cdef public int handovers        # from one process of this agent to the next
    cdef public double lost_at       # monotonic seconds: passed by another process, it has had no way since then; or -1
    cdef public object connecting    # the dial that is under way
