"""What the carriers share: the asyncio side of a link's connection."""

from collections.abc import Callable
from typing import Any

from ncfast.core.link import Link
from ncfast.core.queues import Carrier

class ReceiveBuffer:
    """What all sockets of one event loop are read into, one after the other."""

    size: int
    view: memoryview

    def __init__(self, size: int = 262144) -> None: ...

class TransportCarrier(Carrier):
    """An asyncio BufferedProtocol; takes over the transport when the handshake is done."""

    transport: Any
    link: Link

    def __init__(self, transport: Any, call_later: Callable[..., Any], buffer: ReceiveBuffer) -> None: ...
    def start(self, link: Link) -> None:
        """Puts the link on the carrier; call before the transport is switched over."""

    def feed(self, data: bytes) -> None:
        """Bytes that came before the transport was switched over, of any number."""

    def broken(self) -> None:
        """The connection was reset, and bytes that came before that may still be unread."""

    def is_buffered_protocol(self) -> bool: ...
    def connection_made(self, transport: Any) -> None: ...
    def get_buffer(self, hint: int) -> memoryview: ...
    def buffer_updated(self, n: int) -> None: ...
    def eof_received(self) -> bool: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
