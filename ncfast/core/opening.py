"""What M_OPEN says: for which service a flow is, and where its client has come in.

Its body has two forms, which the first byte tells apart: packed, which costs a flow some slices, and the JSON object of
peers that do not know that form. Who reads the packed one says so (`packed_open`: an agent in HELLO, a hub among its
features); JSON everybody reads.

    byte  size
    0     1     1: this form; a JSON object begins with "{"
    1     16    secret
    17    2     the client's port, big-endian
    19    2     the port that it connected to
    21          texts, each behind its length in one byte: the client's address, the one that it connected to,
                connector, listener, origin, agent, tenant; the last two are empty where there is none
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from ncfast._frames import SECRET_SIZE
from ncfast.core.errors import Reason, RemoteError
from ncfast.core.messages import HOST_SIZE, Failing, Open, is_name, unpacked

PACKED = b"\x01"
KNOWN = 1024  # sets of names of which the packed form is kept: one for each listener, or agent at another hub

_HEAD = struct.Struct(f">c{SECRET_SIZE}sHH")
_NAMES = ("connector", "listener", "origin", "agent", "tenant")
_LONGEST = len(_NAMES) * (1 + 128)  # bytes of five names
_LENGTHS = [bytes((length,)) for length in range(256)]

Ends = tuple[str, int, str, int]  # the client's address and port, then the hub's own end of that connection


class Opening(NamedTuple):
    """Of one flow, hub -> agent, and from hub to hub with the agent's name."""

    connector: str
    listener: str
    secret: bytes  # must be shown again in M_RESUME
    origin: str  # replica that accepted the client
    client: Ends
    agent: str = ""  # hub -> hub: whose flow it is to be
    tenant: str = ""

    @property
    def key(self) -> str:
        """Of the agent, as `Sought` has it."""
        return f"{self.tenant}/{self.agent}"

    def pack(self) -> bytes:
        """The body on the wire."""
        return packed(*self)

    def json(self) -> bytes:
        """The body for who does not read the packed form."""
        return Open(
            connector=self.connector,
            listener=self.listener,
            secret=self.secret.hex(),
            origin=self.origin,
            client=self.client,
            agent=self.agent or None,
            tenant=self.tenant or None,
        ).pack()

    @classmethod
    def unpack(cls, body: bytes) -> Opening:
        """Of either form. Raises RemoteError (protocol_error); its detail names the member, never its value."""
        if body.startswith(PACKED):
            return _unpacked(body)
        said: Open = Open.unpack(body)
        secret = bytes.fromhex(said.secret)
        return cls(said.connector, said.listener, secret, said.origin, said.client, said.agent or "", said.tenant or "")

    @classmethod
    def read(cls, body: bytes, link: Failing) -> Opening | None:
        """What came on a link, or None: then it was malformed, and has ended the link."""
        return unpacked(cls.unpack, body, link)


def packed(
    connector: str, listener: str, secret: bytes, origin: str, client: Ends, agent: str = "", tenant: str = ""
) -> bytes:
    """What `Opening.pack` gives, without the tuple: a hub makes one for each flow."""
    host, port, local, local_port = client
    theirs, ours = host.encode(), local.encode()
    return b"".join(
        (
            _HEAD.pack(PACKED, secret, port, local_port),
            _LENGTHS[len(theirs)],
            theirs,
            _LENGTHS[len(ours)],
            ours,
            _names(connector, listener, origin, agent, tenant),
        )
    )


def _text(text: str) -> bytes:
    said = text.encode()
    return _LENGTHS[len(said)] + said


@lru_cache(KNOWN)
def _names(*names: str) -> bytes:
    return b"".join(map(_text, names))


def _unpacked(body: bytes) -> Opening:
    try:
        _, secret, port, local_port = _HEAD.unpack_from(body)
        local_at = _HEAD.size + 1 + body[_HEAD.size]
        names_at = local_at + 1 + body[local_at]
        host, local = body[_HEAD.size + 1 : local_at].decode(), body[local_at + 1 : names_at].decode()
    except (struct.error, IndexError, UnicodeDecodeError):
        raise _malformed("client") from None
    if len(host) > HOST_SIZE or len(local) > HOST_SIZE:
        raise _malformed("client")
    connector, listener, origin, agent, tenant = _read_names(body[names_at:])
    return Opening(connector, listener, secret, origin, (host, port, local, local_port), agent, tenant)


def _read_names(said: bytes) -> tuple[str, ...]:
    return _checked_names(said) if len(said) <= _LONGEST else _checked_names(b"")


@lru_cache(KNOWN)
def _checked_names(said: bytes) -> tuple[str, ...]:
    names, at = [], 0
    for member in _NAMES:
        end = at + 1 + (said[at] if at < len(said) else 0)
        name = said[at + 1 : end].decode("latin-1")
        if end > len(said) or not (is_name(name) or (not name and member in ("agent", "tenant"))):
            raise _malformed(member)
        names.append(name)
        at = end
    if at != len(said):
        raise _malformed("body")
    return tuple(names)


def _malformed(member: str) -> RemoteError:
    return RemoteError(Reason.PROTOCOL_ERROR, f"{Open.__name__}: {member} is missing or malformed")
