"""The JSON bodies of HELLO, HELLO_ACK, M_OPEN, ANNOUNCE, MOVE, and of M_RESUME between hubs. Unknown members are
ignored: newer peers may say more."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Protocol, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ncfast import __version__
from ncfast.core.errors import Reason, RemoteError
from ncfast.core.features import MOVES, PACKED_OPEN, Features

VERSION = 1  # of the protocol
Body = TypeVar("Body")
SOFTWARE = f"ncfast/{__version__}"  # said for the other side's log

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
is_name = re.compile(_NAME).fullmatch
HOST_SIZE = 64  # characters of an address, at most
LEAST_MESSAGE = 256 * 1024  # bytes of a WebSocket message, which every hub takes

Name = Annotated[str, Field(pattern=f"^{_NAME}$")]
Hex16 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]  # 16 bytes in hexadecimal
Port = Annotated[int, Field(ge=0, le=65535)]
Host = Annotated[str, Field(max_length=HOST_SIZE)]  # an IP address
Epoch = Annotated[int, Field(ge=0, lt=2**53)]  # what every JSON reader holds exactly
Seconds = Annotated[float, Field(ge=0, le=86400)]


def _said(value: Any) -> Any:
    if value is None:
        raise ValueError("null is not the same as not to say it")
    return value


Said = BeforeValidator(_said)  # of a member that is None where it is left out


class Failing(Protocol):
    """A link, as far as it can be ended for what came on it."""

    def fail(self, reason: Reason, detail: str = "") -> None: ...


def unpacked(unpack: Callable[[bytes], Body], body: bytes, link: Failing) -> Body | None:
    """`unpack(body)` of what came on a link, or None: then it raised RemoteError, and that has ended the link."""
    try:
        return unpack(body)
    except RemoteError as exc:
        link.fail(exc.reason, exc.detail)
        return None


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, defer_build=True)

    def pack(self) -> bytes:
        """The body on the wire."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def unpack(cls, body: bytes) -> Self:
        """Raises RemoteError (protocol_error); its detail names the member, never its value."""
        try:
            return cls.model_validate_json(body)
        except ValidationError as exc:
            where = ".".join(str(part) for part in exc.errors(include_input=False)[0]["loc"]) or "body"
            raise RemoteError(Reason.PROTOCOL_ERROR, f"{cls.__name__}: {where} is missing or malformed") from None

    @classmethod
    def read(cls, body: bytes, link: Failing) -> Self | None:
        """What came on a link, or None: then it was malformed, and has ended the link."""
        return unpacked(cls.unpack, body, link)


class Hello(Message):
    """agent -> hub."""

    version: int
    agent_id: Name
    instance: Hex16  # drawn at the agent's start: tells a reconnect from a restart
    connectors: Annotated[list[Name], Field(max_length=256)]
    last_epoch: Epoch = 0  # above it the hub grants; no two HELLOs of an agent that claim say the same
    standby: bool = False  # to be ready only: claims nothing, carries no flow
    alone: bool = False  # a claim: no other tunnel of the agent carries flows any more
    features: Features = []  # what the agent knows beyond version 1
    moves: Annotated[bool, Field(exclude=True)] = (
        False  # the feature, as agents said it before there was a list of them
    )
    packed_open: Annotated[bool, Field(exclude=True)] = False  # the same
    window: Annotated[
        int, Field(ge=65536, lt=2**40)
    ]  # bytes of credit that each new flow's agent end starts with; a frame must fit
    software: Annotated[str, Field(max_length=64)] = ""

    @property
    def known(self) -> frozenset[str]:
        """All features that are said, in either form."""
        single = ((MOVES, self.moves), (PACKED_OPEN, self.packed_open))
        return frozenset(self.features).union(name for name, said in single if said)


class HelloAck(Message):
    """hub -> agent."""

    version: int
    replica_id: Name
    session: Hex16
    epoch: Annotated[int, Field(ge=0, le=2**53)]  # granted; 0 to a standby, which owns nothing
    cluster: bool = False  # other hubs may take over: a standby is of use
    refused: Annotated[list[Name], Field(max_length=256)] = []  # announced, and not in the token
    # what the hub is configured to, in seconds and bytes; None: it does not say
    grace: Annotated[Seconds | None, Said] = None  # for which it keeps a flow without a way
    ping_timeout: Annotated[Annotated[Seconds, Field(gt=0)] | None, Said] = (
        None  # silence after which it ends the tunnel
    )
    drain: Annotated[Seconds | None, Said] = None  # from its GOAWAY to the tunnel's end
    # longest WebSocket message that it takes
    max_message: Annotated[Annotated[int, Field(ge=LEAST_MESSAGE)] | None, Said] = None


class Open(Message):
    """Body of M_OPEN for who does not read the packed one (`ncfast.core.opening`)."""

    connector: Name
    listener: Name
    secret: Hex16  # must be shown again in M_RESUME
    origin: Name  # replica that accepted the client
    client: tuple[Host, Port, Host, Port]  # the client's address, then the hub's own end of that connection
    agent: Name | None = None  # hub -> hub: whose flow it is to be
    tenant: Name | None = None


class Sought(Message):
    """Behind the secret in M_RESUME from the client's hub to the one that owns the agent: whose flow it is."""

    agent: Name
    tenant: Name | None = None
    connector: Name

    @property
    def key(self) -> str:
        return f"{self.tenant or ''}/{self.agent}"


class Vouch(Message):
    """Behind the secret in M_RESUME from the hub that owns the agent to the client's: who it is that asks."""

    agent: Name
    tenant: Name | None = None
    instance: Hex16

    @property
    def key(self) -> str:
        return f"{self.tenant or ''}/{self.agent}"


class Announce(Message):
    """agent -> hub: what is served from now on."""

    connectors: Annotated[list[Name], Field(max_length=256)]


class Move(Message):
    """hub -> agent: be owned there from now on; agent -> hub: we do not get there, and stay."""

    replica_id: Name
