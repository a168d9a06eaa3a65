"""The transport of a flow's plain socket, and the epoll set that all of them are in."""

import asyncio
import socket
from typing import Any

from ncfast.net.stream import Stream

class Poller:
    """The epoll set of a loop's plain sockets."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def adopt(self, sock: socket.socket, protocol: Any) -> SocketTransport:
        """Takes the socket over and puts it under `protocol`, whose `connection_made` has been called when this
        returns."""

class SocketTransport(Stream):
    """A connected TCP socket under an asyncio protocol."""

    def set_protocol(self, protocol: Any) -> None: ...
    def get_protocol(self) -> Any: ...
    def is_reading(self) -> bool: ...
    def is_closing(self) -> bool: ...
    def can_write_eof(self) -> bool: ...
    def detach(self) -> tuple[socket.socket, bytes]:
        """Gives the socket up, and the bytes that it has not taken."""
