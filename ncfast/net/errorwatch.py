"""Resets of links, which the loop's own polling loses (docs/decisions/0008-error-watch.md)."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class ErrorWatch:
    """Tells of resets that the loop's own polling loses.

    libuv stops polling a descriptor at its first POLLERR and calls back once (libuv pull request 3797); a reader that
    does not empty the socket in that one call is never called again, and the reset after the last bytes goes unnoticed.
    So every connection is also in an epoll set of ours that asks for nothing, edge-triggered: errors and hang-ups are
    reported always. It costs one system call a connection, and none a byte.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, fd: int, callback: Callable[[], None]) -> int:
        self._callbacks[fd] = callback
        self._epoll.register(fd, select.EPOLLET)
        return fd

    def remove(self, fd: int) -> None:
        """Call before the descriptor is closed; closing takes it out of the kernel's set."""
        self._callbacks.pop(fd, None)

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0, 256):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()
