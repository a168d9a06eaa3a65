"""An HTTP proxy that knows CONNECT, as companies have it between an agent and the world."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from support.peer import Address


class ConnectProxy:
    """Threads and blocking sockets: what goes through it is small."""

    def __init__(self, authorization: str | None = None) -> None:
        self.requests: list[str] = []
        self._authorization = authorization
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.address: Address = self._listener.getsockname()
        self._spawn(self._accept)

    def _spawn(self, function: object, *arguments: object) -> None:
        threading.Thread(target=self._quietly, args=(function, *arguments), daemon=True).start()

    @staticmethod
    def _quietly(function: object, *arguments: object) -> None:
        with suppress(OSError):
            function(*arguments)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            self._sockets.append(client)
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := client.recv(4096)):
                return client.close()
            head += data
        lines = head.decode("latin-1").split("\r\n")
        self.requests.append(lines[0])
        wanted = f"Proxy-Authorization: {self._authorization}"
        if self._authorization and wanted not in lines:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return client.close()
        host, _, port = lines[0].split()[1].rpartition(":")
        target = socket.create_connection((host, int(port)))
        self._sockets.append(target)
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._spawn(self._copy, client, target)
        self._copy(target, client)

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextmanager
def connect_proxy(authorization: str | None = None) -> Iterator[ConnectProxy]:
    """A proxy for the length of a test; with ``authorization`` it wants exactly that Proxy-Authorization."""
    proxy = ConnectProxy(authorization)
    try:
        yield proxy
    finally:
        proxy.close()
