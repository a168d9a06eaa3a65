"""The access log's line of a flow."""


cdef enum:
    SILENT = -1                      # the line is not written


cdef class AccessLog:
    cdef object _state               # what the log's setup may replace
    cdef object _told                # makes the line of others than JSON's, and tells of it who wants it in its parts
    cdef object _json                # how a line is written in JSON
    cdef str _name                   # of the logger
    cdef tuple _names
    cdef list _fields                # how each is written

    cdef int admit(self) except -2
    cdef int put(self, tuple values, int held_back) except -1
    cdef int _put(self, tuple values, int held_back) except -1
