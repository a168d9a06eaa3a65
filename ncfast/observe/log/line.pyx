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

cdef object TOKEN = re.compile(r"eyJ[\w-]{5,}\.[\w-]*(\.[\w-]*)?")    # a JWT starts with the base64 of '{"'

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


cdef str timestamp():
    global second, second_text
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    if now.tv_sec != second:
        second = now.tv_sec
        second_text = datetime.datetime.fromtimestamp(second, datetime.UTC).isoformat()[:19]    # without "+00:00"
    return PyUnicode_FromFormat(b"%U.%03dZ", <void*>second_text, <int>(now.tv_nsec // 1000000))


cdef object address(value, mask):
    if value is None:
        return None
    if isinstance(value, tuple) and len(value) >= 2:       # as `getpeername` gives it
        host, port = str(value[0]), value[1]
        value = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
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
