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

from typing import NamedTuple

from ncfast.core import messages
from ncfast.core.messages import Failing, Open
from ncfast.core.packed import packed, unpacked

PACKED = b"\x01"

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
            return cls._make(unpacked(body))
        said: Open = Open.unpack(body)
        secret = bytes.fromhex(said.secret)
        return cls(said.connector, said.listener, secret, said.origin, said.client, said.agent or "", said.tenant or "")

    @classmethod
    def read(cls, body: bytes, link: Failing) -> Opening | None:
        """What came on a link, or None: then it was malformed, and has ended the link."""
        return messages.unpacked(cls.unpack, body, link)
