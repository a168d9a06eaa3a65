"""What a log line shows of an event: fields that are listed, masked by the rule, within bounds, in one line.

Compiled because each flow has a line: in Python that was a sixth of what a short connection cost a hub.
"""

import datetime
import errno
import re
from collections.abc import Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from urllib.parse import urlsplit

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from ncfast.observe.log.fields import ADDRESS_FIELDS, FIELDS, IDENTITY_FIELDS, URL_FIELDS
from ncfast.observe.log.fields import MAX_ITEMS as _MAX_ITEMS
from ncfast.observe.log.fields import MAX_TEXT as _MAX_TEXT

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const unsigned char* PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    object PyUnicode_FromFormat(const char* format, ...)
    bint PyLong_CheckExact(object value)
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1

cdef enum:
    DEPTH = 2                  # of lists and mappings in each other
    LONGEST_IPV4 = 15          # characters

cdef double MICROS = 1e6
cdef double EXACT = 9007199254740992.0    # 2**53: whole numbers below it are exact

cdef Py_ssize_t LONGEST = _MAX_TEXT
cdef object MOST_ITEMS = _MAX_ITEMS
cdef object LEAST_INT = -(2**63)
cdef object MOST_INT = 2**64

cdef dict RULES = {
    **dict.fromkeys(FIELDS, <int>PLAIN),
    **dict.fromkeys(ADDRESS_FIELDS, <int>ADDRESS),
    **dict.fromkeys(IDENTITY_FIELDS, <int>IDENTITY),
    **dict.fromkeys(URL_FIELDS, <int>URL),
}

cdef class _Field:
    """How a field is written: what stands before its value, and the rule for that."""

    def __cinit__(self, str name, int rule):
        self.key = f',"{name}":'.encode()
        self.rule = rule


cdef dict WRITTEN = {name: _Field(name, rule) for name, rule in RULES.items()}

cdef object TOKEN = re.compile(r"eyJ[\w-]{5,}\.[\w-]*(\.[\w-]*)?")    # a JWT starts with the base64 of '{"'

cdef bint ODD[256]             # what has a text looked at more closely: what is escaped, and where a token begins
for _code in range(256):
    ODD[_code] = _code < 0x20 or _code > 0x7E or _code == c'"' or _code == c"\\" or _code == c"J"

cdef long long second = -1     # of the last line
cdef str second_text = ""


def shown(str level, str event, str name, dict fields, mask, agents):
    """The line as a dictionary that JSON can hold. `mask` is the rule for addresses, `agents` that for identities. May
    raise whatever a value's `__str__` does."""
    cdef dict line = {"ts": timestamp(), "level": level, "event": text(event), "logger": name}
    cdef Py_ssize_t unlisted = 0
    for key, value in fields.items():
        found = RULES.get(key)
        if found is None:
            unlisted += 1
            continue
        rule = <int>found
        if rule == PLAIN:
            line[key] = plain(value, DEPTH)
        elif rule == ADDRESS:
            line[key] = address(value, mask)
        elif rule == IDENTITY:
            line[key] = None if value is None else text(agents.identity(str(value)))
        else:
            line[key] = text(bare_url(value)) if isinstance(value, str) else plain(value, DEPTH)
    if unlisted:               # their number only: nobody has thought yet about what they may hold
        line["unlisted"] = unlisted
    return line


def written(str level, str event, str name, dict fields, mask, agents, int suppressed):
    """The line in JSON, as bytes with their newline: what `shown` says, `suppressed` with it, but with no dictionary
    between. None if something of it is not what a line nearly always has: then `shown` is asked."""
    cdef Line line
    if not begin(&line, level, event, name):
        return None
    for key, value in fields.items():
        if not put_field(&line, field_of(key), value, mask, agents):
            return None
    return finished(&line, suppressed)


cdef bytes written_values(str level, str event, str name, list fields, tuple values, mask, agents, int suppressed):
    """As `written`, of fields that are known beforehand (`field_of`), and a value for each."""
    cdef Line line
    cdef Py_ssize_t i
    if len(fields) != len(values):
        raise TypeError(f"{event} has {len(fields)} fields")
    if not begin(&line, level, event, name):
        return None
    for i in range(len(fields)):
        if not put_field(&line, <_Field>fields[i], values[i], mask, agents):
            return None
    return finished(&line, suppressed)


cdef _Field field_of(name):
    """None for a field that is not listed."""
    return <_Field>WRITTEN.get(name)


cdef bint begin(Line* line, str level, str event, str name) except -1:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    line.size = 0
    return (
        put(line, b'{"ts":"', 7)
        and put_ascii(line, of_second(now.tv_sec))
        and put(line, b".", 1)
        and put_digits(line, <int>(now.tv_nsec // 1000000), 3)
        and put(line, b'Z",', 3)
        and put(line, b'"level":', 8)
        and put_text(line, level)
        and put(line, b',"event":', 9)
        and put_text(line, event)
        and put(line, b',"logger":', 10)
        and put_text(line, name)
    )


cdef bytes finished(Line* line, int suppressed):
    if suppressed and not (put(line, b',"suppressed":', 14) and put_int(line, suppressed)):
        return None
    if not put(line, b"}\n", 2):
        return None
    return PyBytes_FromStringAndSize(line.at, line.size)


cdef bint put_field(Line* line, _Field field, value, mask, agents) except -1:
    if field is None or not put_bytes(line, field.key):
        return False
    if field.rule == ADDRESS:
        if type(value) is tuple and mask.shows and put_end(line, <tuple>value):
            return True
        value = address(value, mask)
    elif field.rule == IDENTITY and value is not None:
        value = str(value)
        if not agents.shows:
            value = text(agents.identity(value))
    elif field.rule == URL and isinstance(value, str):
        value = text(bare_url(value))
    return put_value(line, value)


cdef bint put_end(Line* line, tuple end) except -1:
    """host:port in quotes, if it is what an IPv4 client has."""
    cdef const unsigned char* at
    cdef Py_ssize_t i, n
    cdef long port
    if len(end) < 2 or type(end[0]) is not str or not PyLong_CheckExact(end[1]) \
            or not PyUnicode_IS_COMPACT_ASCII(end[0]):
        return False
    at = PyUnicode_1BYTE_DATA(end[0])
    n = PyUnicode_GET_LENGTH(end[0])
    port = end[1]
    if not 0 < n <= LONGEST_IPV4 or not 0 <= port <= 65535 or line.size + n + 8 > ROOM:
        return False
    for i in range(n):
        if at[i] != c"." and not c"0" <= at[i] <= c"9":
            return False
    put(line, b'"', 1)
    put(line, <const char*>at, n)
    put(line, b":", 1)
    put_int(line, port)
    return put(line, b'"', 1)


cdef bint put(Line* line, const char* p, Py_ssize_t n) noexcept:
    """Whether there was room."""
    if line.size + n > ROOM:
        return False
    memcpy(line.at + line.size, p, n)
    line.size += n
    return True


cdef bint put_bytes(Line* line, bytes said) noexcept:
    return put(line, PyBytes_AS_STRING(said), PyBytes_GET_SIZE(said))


cdef bint put_ascii(Line* line, str said) noexcept:
    return put(line, <const char*>PyUnicode_1BYTE_DATA(said), PyUnicode_GET_LENGTH(said))


cdef bint put_text(Line* line, str said) except -1:
    """In quotes, if there is nothing in it to escape."""
    cdef const unsigned char* at
    cdef Py_ssize_t i, n
    if said is not None and PyUnicode_IS_COMPACT_ASCII(said):
        at = PyUnicode_1BYTE_DATA(said)
        n = PyUnicode_GET_LENGTH(said)
        if n <= LONGEST and line.size + n + 2 <= ROOM:
            for i in range(n):
                if ODD[at[i]]:
                    break
            else:
                put(line, b'"', 1)
                put(line, <const char*>at, n)
                return put(line, b'"', 1)
    said = text(said)
    return '"' not in said and "\\" not in said and put(line, b'"', 1) and put_bytes(line, said.encode()) \
        and put(line, b'"', 1)


cdef bint put_value(Line* line, value) except -1:
    cdef long long number
    cdef int overflow = 0
    if type(value) is str:
        return put_text(line, value)
    if value is None:
        return put(line, b"null", 4)
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        return overflow == 0 and put_int(line, number)
    if type(value) is float:
        return put_seconds(line, value)
    if type(value) is bool:
        return put(line, b"true", 4) if value else put(line, b"false", 5)
    return False


cdef bint put_int(Line* line, long long value) noexcept:
    """Of the digits the last first."""
    cdef int at = sizeof(line.digits)
    cdef unsigned long long left = -<unsigned long long>value if value < 0 else value
    while True:
        at -= 1
        line.digits[at] = <char>(c"0" + <int>(left % 10))
        left //= 10
        if left == 0:
            break
    if value < 0:
        at -= 1
        line.digits[at] = c"-"
    return put(line, line.digits + at, <Py_ssize_t>sizeof(line.digits) - at)


cdef bint put_digits(Line* line, int value, int width) noexcept:
    """With zeros before it."""
    cdef int at
    for at in range(width - 1, -1, -1):
        line.digits[at] = <char>(c"0" + value % 10)
        value //= 10
    return put(line, line.digits, width)


cdef bint put_seconds(Line* line, double value) noexcept:
    """A number that is exact in millionths. The quotient of two exact numbers is the double that is nearest to it, so
    what is written here is read as the same one."""
    cdef double micros = value * MICROS
    cdef long long whole
    cdef int n
    if not (0.0 <= micros < EXACT):
        return False
    whole = <long long>(micros + 0.5)
    if <double>whole / MICROS != value:
        return False
    if not (put_int(line, whole // 1000000) and put(line, b".", 1) and put_digits(line, <int>(whole % 1000000), 6)):
        return False
    for n in range(5):
        if line.at[line.size - 1] != c"0":
            break
        line.size -= 1
    return True


cdef str of_second(long long now):
    """The time in UTC, without what is below a second."""
    global second, second_text
    if now != second:
        second = now
        second_text = datetime.datetime.fromtimestamp(second, datetime.UTC).isoformat()[:19]    # without "+00:00"
    return second_text


cdef str timestamp():
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    cdef str text = of_second(now.tv_sec)
    return PyUnicode_FromFormat(b"%U.%03dZ", <void*>text, <int>(now.tv_nsec // 1000000))


cdef object address(value, mask):
    if value is None:
        return None
    if isinstance(value, tuple) and len(value) >= 2:       # as `getpeername` gives it
        return text(mask.end(str(value[0]), value[1]))
    return text(mask.address(str(value)))


cdef object plain(value, int depth):
    """A value that JSON can hold, within bounds; of an unknown type only the type's name."""
    cdef int overflow = 0
    if type(value) is str:
        return text(value)
    if PyLong_CheckExact(value):
        PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow == 0:
            return value
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, Enum):
        value = value.value if isinstance(value, str) else value.name.lower()
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int):
        return int(value) if LEAST_INT <= value < MOST_INT else "<int>"
    if isinstance(value, OSError):
        name, code = type(value).__name__, errno.errorcode.get(value.errno or 0)
        return f"{name}({code})" if code else name
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, (PurePath, IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
        return text(str(value))
    if depth and isinstance(value, Mapping):
        return {text(str(k)): plain(v, depth - 1) for k, v in list(value.items())[:MOST_ITEMS]}
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth - 1) for item in list(value)[:MOST_ITEMS]]
    return f"<{type(value).__name__}>"


cdef str text(str said):
    """One line of at most 256 characters, without control characters and without tokens."""
    if is_clean(said):
        return said            # nearly all
    if len(said) > 4 * LONGEST:
        said = said[:4 * LONGEST]                          # bounds the work, too
    if "eyJ" in said:
        said = TOKEN.sub("<token>", said)
    if not said.isprintable():                             # C0, C1, U+2028/9, directions, lone surrogates, ...
        said = "".join([char if char.isprintable() else escape(ord(char)) for char in said])
    return said if len(said) <= LONGEST else said[:LONGEST - 1] + "…"


cdef bint is_clean(str said) except -1:
    """Whether it can be shown as it is; not always told of what is not ASCII."""
    cdef const unsigned char* at
    cdef Py_ssize_t i, n
    if said is None or not PyUnicode_IS_COMPACT_ASCII(said):
        return False
    n = PyUnicode_GET_LENGTH(said)
    if n > LONGEST:
        return False
    at = PyUnicode_1BYTE_DATA(said)
    for i in range(n):
        if at[i] < 0x20 or at[i] > 0x7E:
            return False
        if at[i] == c"J" and i >= 2 and at[i - 1] == c"y" and at[i - 2] == c"e":
            return False
    return True


cdef str escape(int code):
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


cdef str bare_url(str url):
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<url>"
    if not parts.netloc:
        return url if "@" not in url and "?" not in url else "<url>"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
