"""What a log line shows of an event."""

cdef enum Rule:                # how a field is shown
    PLAIN = 1
    ADDRESS
    IDENTITY
    URL

cdef enum:
    ROOM = 2048                # bytes of a line that is written at once; an access log's has some 450

cdef struct Line:              # that is being written
    char at[ROOM]
    Py_ssize_t size
    char digits[24]

cdef class _Field:
    cdef bytes key
    cdef int rule

cdef bytes written_values(str level, str event, str name, list fields, tuple values, mask, agents, int suppressed)
cdef _Field field_of(name)
cdef bint begin(Line* line, str level, str event, str name) except -1
cdef bytes finished(Line* line, int suppressed)
cdef bint put_field(Line* line, _Field field, value, mask, agents) except -1
cdef bint put_end(Line* line, tuple end) except -1
cdef bint put(Line* line, const char* p, Py_ssize_t n) noexcept
cdef bint put_bytes(Line* line, bytes said) noexcept
cdef bint put_ascii(Line* line, str said) noexcept
cdef bint put_text(Line* line, str said) except -1
cdef bint put_value(Line* line, value) except -1
cdef bint put_int(Line* line, long long value) noexcept
cdef bint put_digits(Line* line, int value, int width) noexcept
cdef bint put_seconds(Line* line, double value) noexcept
cdef str of_second(long long now)
cdef str timestamp()
cdef object address(value, mask)
cdef object plain(value, int depth)
cdef str text(str said)
cdef bint is_clean(str said) except -1
cdef str escape(int code)
cdef str bare_url(str url)
