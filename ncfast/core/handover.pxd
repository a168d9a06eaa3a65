"""A flow's end passes to another process."""

from ncfast.core.flow cimport Flow

cdef bytes _kept(Flow flow)
cdef int _keep(Flow flow, bytes kept) except -1
