"""The access log's line of a flow: its fields are known beforehand, so that a flow brings no more than their values.

Compiled because each flow has a line.
"""

from ncfast.observe.log.limiter cimport EventLimiter
from ncfast.observe.log.line cimport field_of, written_values
from ncfast.observe.log.recent cimport Recent

cdef str EVENT = "flow_closed"
cdef str LEVEL = "info"
cdef int INFO = 20             # the level as a number


cdef class AccessLog:
    """`write(*values)`: one for each of the names. It neither blocks nor raises. Who has to find its values first asks
    whether there will be a line (`admit`), and gives them to `put`."""

    def __init__(self, state not None, told not None, json not None, str name not None, *names):
        self._state = state
        self._told = told
        self._json = json
        self._name = name
        self._names = names
        self._fields = [field_of(one) for one in names]

    def write(self, *values):
        """A flow is over."""
        cdef int held_back = self.admit()
        if held_back != SILENT:
            self.put(values, held_back)

    cdef int admit(self) except -2:
        """How many lines were held back since the last one; SILENT if this one is, too."""
        cdef EventLimiter limiter = self._state.limiter
        if <int>self._state.threshold > INFO:
            return SILENT
        held_back = limiter.admit(EVENT)
        return SILENT if held_back is None else held_back

    cdef int put(self, tuple values, int held_back) except -1:
        """The line that was admitted."""
        try:
            self._put(values, held_back)
        except Exception:                # the wall, as of every other line
            self._state.failed += 1
        return 0

    cdef int _put(self, tuple values, int held_back) except -1:
        state = self._state
        cdef Recent recent = state.recent
        cdef bytes line = None
        if state.render is self._json and state.also is None:
            line = written_values(LEVEL, EVENT, self._name, self._fields, values, state.mask, state.mask_agents,
                                  held_back)
        if line is None:
            line = self._told(LEVEL, EVENT, dict(zip(self._names, values)), held_back)
        recent.put(line)
        state.writer.put(line, False)
        return 0
