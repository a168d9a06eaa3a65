"""What hubs say to each other before a mesh link stands: HELLO, HELLO_ACK, AUTH. Pure logic.

    dialler                                     listener
      HELLO      who I am, nonce        ->
             <-  HELLO_ACK   who I am, nonce, proof (if there is a secret)
      AUTH       proof (if there is a secret) ->

The dialler holds the link for established when it has sent AUTH, the listener when it has received it. So neither end
serves a link that the other has turned down, and nobody proves anything to a recording: each proof covers the other
end's nonce. HELLO also says what was dialled, and both proofs cover it (`ncfast.mesh.binding`). Unknown members are
ignored, as in all bodies: a newer hub may say more.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

from pydantic import Field

from ncfast.core.features import Features
from ncfast.core.messages import Message, Name

NONCE_SIZE = 32  # bytes

Instance = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Dialled = Annotated[str, Field(pattern=r"^[\x21-\x7e]{0,512}$")]  # no zero byte: the proof's text has them between


class Hello(Message):
    """dialler -> listener."""

    version: int
    cluster: Name
    replica_id: Name
    instance: Instance  # drawn at the hub's start
    nonce: Hex32  # drawn for this link
    features: Features = []
    software: Annotated[str, Field(max_length=64)] = ""
    url: Dialled = ""  # what the dialler has dialled; this and the next two are empty in HELLO_ACK
    place: Dialled = ""  # the address that it has found there
    channel: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){0,64}$")] = ""  # of its TLS; empty without


class HelloAck(Hello):
    """listener -> dialler."""

    proof: Hex32 | None = None


class Auth(Message):
    """dialler -> listener."""

    proof: Hex32 | None = None


def proof(secret: bytes, role: str, hello: Hello, ack: Hello) -> str:
    """HMAC-SHA256 over both ends' names, instances and nonces, over what was dialled and through which channel, and
    over whose proof it is: "dialler" or "listener". What one end proves is of no use for the other role, another pair,
    another link, another connection."""
    text = "\0".join(
        (
            "ncfast mesh 2",
            role,
            hello.cluster,
            hello.replica_id,
            ack.replica_id,
            hello.instance,
            ack.instance,
            hello.nonce,
            ack.nonce,
            hello.url,
            hello.place,
            hello.channel,
        )
    )
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def proves(secret: bytes, role: str, hello: Hello, ack: Hello, shown: str | None) -> bool:
    """Whether `shown` is that role's proof; in constant time."""
    return shown is not None and hmac.compare_digest(proof(secret, role, hello, ack), shown)
