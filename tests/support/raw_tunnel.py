"""An agent's side of the tunnel by hand: for handshakes and frames that no real agent would send."""

from __future__ import annotations

import base64
import os
import socket
import struct
from typing import Any

from support.peer import Address
from support.until import PATIENCE

BINARY, TEXT, CONTINUATION, CLOSE, PING = 2, 1, 0, 8, 9


def upgrade_request(
    token: str | None,
    *,
    path: str = "/tunnel",
    method: str = "GET",
    headers: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
) -> bytes:
    """The head of a WebSocket handshake, with headers added and taken away."""
    lines = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    if token is not None:
        lines["Authorization"] = f"Bearer {token}"
    kept = [f"{name}: {value}" for name, value in lines.items() if name not in without]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *kept, *headers, "", ""]).encode("latin-1")


def ws_frame(payload: bytes, opcode: int = BINARY, **header: Any) -> bytes:
    """One WebSocket frame as a client sends it."""
    return ws_header(len(payload), opcode, **header) + payload  # the mask is all zero


def ws_header(length: int, opcode: int = BINARY, *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    """Its header alone, with whatever length it claims."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask_bit = 0x80 if masked else 0
    if length < 126:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    return head + (bytes(4) if masked else b"")


class RawTunnel:
    """A socket to the hub's edge; a context manager."""

    def __init__(self, edge: Address) -> None:
        self.sock = socket.create_connection(edge, timeout=PATIENCE)
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send, and do not mind a hub that has closed already."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def head(self) -> tuple[int, bytes]:
        """Status and head of the answer; status 0 when the hub closed without one."""
        while b"\r\n\r\n" not in self._buffer:
            if not (data := self._receive()):
                return 0, self._buffer
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), head

    def upgrade(self, token: str) -> RawTunnel:
        """A proper handshake."""
        self.send(upgrade_request(token))
        status, head = self.head()
        assert status == 101, head
        return self

    def message(self) -> tuple[int, bytes]:
        """Opcode and payload of the hub's next frame; (-1, b"") when it has closed."""
        try:
            first, second = self._exactly(2)
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(self._exactly(2 if size == 126 else 8))
            return first & 0x0F, self._exactly(size)
        except EOFError:
            return -1, b""

    def close_code(self) -> int | None:
        """Read until the hub closes; the code of its close frame, None when it went without one."""
        code = None
        while True:
            opcode, payload = self.message()
            if opcode == CLOSE:
                code = int.from_bytes(payload[:2]) if payload else 1005
            if opcode == -1:
                return code

    def closed(self) -> bytes:
        """Read until the hub closes; everything it said."""
        said = self._buffer
        while data := self._receive():
            said += data
        return said

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not (data := self._receive()):
                raise EOFError
            self._buffer += data
        out, self._buffer = self._buffer[:size], self._buffer[size:]
        return out

    def _receive(self) -> bytes:
        try:
            return self.sock.recv(65536)
        except ConnectionResetError:
            return b""

    def __enter__(self) -> RawTunnel:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
