"""What a log line shows of an event."""

cdef enum Rule:                # how a field is shown
    PLAIN = 1
    ADDRESS
    IDENTITY
    URL

cdef str timestamp()
cdef object address(value, mask)
cdef object plain(value, int depth)
cdef str text(str said)
cdef bint is_clean(str said) except -1
cdef str escape(int code)
cdef str bare_url(str url)
