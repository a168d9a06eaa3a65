"""A target that answers no SYN: it listens, and its queue is full."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def silent_address() -> Iterator[tuple[str, int]]:
    with contextlib.ExitStack() as full:
        sock = full.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = full.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
        yield sock.getsockname()
