"""The packed form of what M_OPEN says."""

from libc.stdint cimport uint8_t

cdef enum:                   # where members of `Opening` stand in what `unpacked` returns
    CONNECTOR = 0
    SECRET = 2
    CLIENT = 4

cpdef bytes packed(str connector, str listener, bytes secret, str origin, tuple client, str agent=*, str tenant=*)
cpdef tuple unpacked(bytes body)
cdef Py_ssize_t put(uint8_t* at, str text) except -1
cdef tuple names_in(bytes said)
cdef object malformed(str member)
