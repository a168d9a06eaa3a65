"""The packed form of what M_OPEN says; `ncfast.core.opening` has the table.

Compiled because each flow is opened by one: written at a hub, read at an agent.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcpy

from ncfast._frames cimport SECRET_SIZE

from ncfast.core.errors import Reason, RemoteError
from ncfast.core.messages import HOST_SIZE as _HOST_SIZE
from ncfast.core.messages import Open, is_name

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    FORM = 1
    PORTS = 1 + SECRET_SIZE    # where they are
    TEXTS = PORTS + 4          # and the texts behind them
    MOST_TEXTS = 7
    LONGEST = 255              # bytes of a text
    LONGEST_NAMES = 5 * (1 + 128)
    KNOWN = 1024               # sets of names that are known to be some: one for each listener, or agent at another hub

cdef Py_ssize_t LONGEST_HOST = _HOST_SIZE    # characters
cdef tuple NAMES = ("connector", "listener", "origin", "agent", "tenant")
cdef tuple OPTIONAL = ("agent", "tenant")
cdef dict known = {}


cpdef bytes packed(str connector, str listener, bytes secret, str origin, tuple client, str agent="", str tenant=""):
    """What `Opening.pack` gives, without the tuple. Raises ValueError for what has no place in it."""
    cdef uint8_t body[TEXTS + MOST_TEXTS * (1 + LONGEST)]
    cdef uint8_t* at = body
    cdef uint16_t port = client[1], local_port = client[3]
    if PyBytes_GET_SIZE(secret) != SECRET_SIZE:
        raise ValueError("a secret is 16 bytes")
    at[0] = FORM
    memcpy(at + 1, PyBytes_AS_STRING(secret), SECRET_SIZE)
    at[PORTS] = port >> 8
    at[PORTS + 1] = port & 0xFF
    at[PORTS + 2] = local_port >> 8
    at[PORTS + 3] = local_port & 0xFF
    at += TEXTS
    at += put(at, client[0])
    at += put(at, client[2])
    at += put(at, connector)
    at += put(at, listener)
    at += put(at, origin)
    at += put(at, agent)
    at += put(at, tenant)
    return PyBytes_FromStringAndSize(<char*>body, at - body)


cdef Py_ssize_t put(uint8_t* at, str text) except -1:
    """The text behind its length; of how many bytes both are."""
    cdef Py_ssize_t size
    cdef const char* said = PyUnicode_AsUTF8AndSize(text, &size)
    if size > LONGEST:
        raise ValueError("a text is too long")
    at[0] = <uint8_t>size
    memcpy(at + 1, said, size)
    return 1 + size


cpdef tuple unpacked(bytes body):
    """The members of `Opening` in their order. Raises RemoteError as `Opening.unpack`."""
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(body)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body), local_at, names_at
    cdef str host, local
    if size <= TEXTS:
        raise malformed("client")
    local_at = TEXTS + 1 + at[TEXTS]
    if local_at >= size:
        raise malformed("client")
    names_at = min(size, local_at + 1 + at[local_at])
    try:
        host = PyUnicode_DecodeUTF8(<char*>at + TEXTS + 1, local_at - TEXTS - 1, NULL)
        local = PyUnicode_DecodeUTF8(<char*>at + local_at + 1, names_at - local_at - 1, NULL)
    except UnicodeDecodeError:
        raise malformed("client") from None
    if len(host) > LONGEST_HOST or len(local) > LONGEST_HOST:
        raise malformed("client")
    said = PyBytes_FromStringAndSize(<const char*>at + names_at, size - names_at)
    names = known.get(said)
    if names is None:
        names = names_in(said)
        if len(known) >= KNOWN:
            known.clear()
        known[said] = names
    connector, listener, origin, agent, tenant = <tuple>names
    secret = PyBytes_FromStringAndSize(<const char*>at + 1, SECRET_SIZE)
    client = host, at[PORTS] << 8 | at[PORTS + 1], local, at[PORTS + 2] << 8 | at[PORTS + 3]
    return connector, listener, secret, origin, client, agent, tenant


cdef tuple names_in(bytes said):
    cdef Py_ssize_t at = 0, end, size = PyBytes_GET_SIZE(said)
    cdef const uint8_t* lengths = <const uint8_t*>PyBytes_AS_STRING(said)
    cdef list names = []
    if size > LONGEST_NAMES:
        raise malformed(NAMES[0])
    for member in NAMES:
        end = at + 1 + (lengths[at] if at < size else 0)
        name = said[at + 1:end].decode("latin-1")
        if end > size or not (is_name(name) or (not name and member in OPTIONAL)):
            raise malformed(member)
        names.append(name)
        at = end
    if at != size:
        raise malformed("body")
    return tuple(names)


cdef object malformed(str member):
    return RemoteError(Reason.PROTOCOL_ERROR, f"{Open.__name__}: {member} is missing or malformed")
