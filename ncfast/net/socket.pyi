"""The socket end of a flow."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ncfast.core.context import FlowContext
from ncfast.core.ends import Sink
from ncfast.core.flow import Flow
from ncfast.net.stream import Stream

class _SocketOwner(Protocol):
    def socket_ready(self, end: SocketEnd, /) -> None:
        """The socket is usable."""

    def socket_gone(self, end: SocketEnd, /) -> None:
        """It is closed."""

class SocketState(NamedTuple):
    """A socket between two ends that it is under, with what the kernel does not know."""

    sock: Any  # what `Net.adopt_end` takes
    unsent: bytes  # that the kernel has not taken
    eof_in: bool  # the far side's end of stream was read
    eof_out: bool  # ours was written, be it behind `unsent`

class SocketEnd(Sink):
    """An asyncio BufferedProtocol over a client's or a target's TCP connection."""

    ctx: FlowContext
    flow: Flow[Any] | None
    transport: Stream
    left: int  # bytes that wait for the socket although the flow is over

    @property
    def in_kernel(self) -> int:
        """Bytes that the kernel holds for the far machine (SIOCOUTQ): a system call."""

    def __init__(
        self,
        ctx: FlowContext,
        owner: _SocketOwner,
        call_later: Callable[..., Any],
        reset_code: int,
        lost_code: int,
    ) -> None: ...
    def carry(self, flow: Flow[Any]) -> None:
        """Puts the flow on this socket."""

    def detach(self) -> SocketState | None:
        """Gives up the socket of a flow that is to be exported in the same turn; None if either is over. The owner is
        told nothing."""

    def inherit(self, flow: Flow[Any], state: SocketState) -> None:
        """Before this end is adopted on `state.sock`: it goes on with a flow that was restored, and calls no
        `socket_ready`."""

    def feed(self, data: bytes) -> None:
        """Bytes that were read before this end took the socket over."""

    def abort(self) -> None:
        """Resets the connection: the far side sees an error, not an end of stream."""

    def handshake_failed(self, exc: Exception) -> None:
        """The transport could not be made."""

    def is_buffered_protocol(self) -> bool: ...
    def connection_made(self, transport: Stream) -> None: ...
    def get_buffer(self, hint: int) -> memoryview: ...
    def buffer_updated(self, n: int) -> None: ...
    def eof_received(self) -> bool: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
