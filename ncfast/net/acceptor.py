"""Listening sockets, and the loop that accepts from them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Protocol

from ncfast.config.values import Address
from ncfast.net.binding import unlink
from ncfast.net.connect import OUT_OF_DESCRIPTORS
from ncfast.net.syscalls import Accepted, accept

ACCEPT_BATCH = 64  # accepts a turn of the loop, so that a flood of connects does not starve open flows
LONELY = 8  # turns that brought one connection each, after which no second one is asked for
PROBE = 16  # then every so many turns it is: who else has come is told by the next turn, at the price of that
ACCEPT_PAUSE = 0.2  # seconds without accepting when descriptors run out; the kernel's queue holds the clients
_UNBLOCKED = socket.SOCK_STREAM | socket.SOCK_NONBLOCK  # what a descriptor is already


class _Net(Protocol):
    loop: asyncio.AbstractEventLoop

    def has_room(self, reserve: int, /) -> bool: ...
    def poll(self) -> None: ...


class Acceptor:
    """Accepts from sockets that listen; it survives running out of descriptors."""

    def __init__(
        self,
        net: _Net,
        socks: list[socket.socket],
        on_socket: Callable[[Any, Any], object],
        reserve: int,
        on_shed: Callable[[str], None],
        bare: bool = False,
        behind: Callable[[], None] = lambda: None,
    ) -> None:
        self._net = net
        self.sockets = socks
        self._on_socket = on_socket
        self._reserve = reserve
        self._on_shed = on_shed
        self._bare = bare
        self._behind = behind
        self._timer: asyncio.TimerHandle | None = None
        self._turns = 0
        self._lonely = 0  # turns in a row that brought one connection
        self.closed = False
        self.held = False
        self.shared = False  # another process listens on the same sockets
        where = socks[0].getsockname()
        self.address = (
            where if isinstance(where, str) else str(Address(*where[:2]))
        )  # as bound; told also when it is closed
        # where all connections come in, if that is one address: none is asked for its own end
        self.own: tuple[str, int] | None = where[:2] if _is_one(socks) else None
        self._resume()

    @property
    def paused(self) -> bool:
        """Whether descriptors ran out a moment ago."""
        return self._timer is not None

    def hold(self) -> None:
        """Accepts nobody for the time being: who connects waits in the kernel's queue, or is another process's."""
        if self.held or self.closed:
            return
        self.held = True
        self._stop()

    def go_on(self) -> None:
        """After `hold`."""
        if self.held and not self.closed:
            self.held = False
            self._resume()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for sock in self.sockets:
            self._net.loop.remove_reader(sock)

    def _resume(self) -> None:
        self._timer = None
        for sock in self.sockets:
            self._net.loop.add_reader(sock, self._ready, sock)

    def _pause(self) -> None:
        self._on_shed("fd")
        for sock in self.sockets:
            self._net.loop.remove_reader(sock)
        self._timer = self._net.loop.call_later(ACCEPT_PAUSE, self._resume)

    def _ready(self, sock: socket.socket) -> None:
        try:
            self._accept(sock)
            self._net.poll()
        finally:
            self._behind()

    def _accept(self, sock: socket.socket) -> None:
        self._turns += 1
        most = ACCEPT_BATCH if self._lonely < LONELY or self._turns % PROBE == 0 else 1
        for count in range(most):
            if not self._net.has_room(self._reserve):
                return self._pause()
            try:
                found = accept(sock.fileno())
            except (InterruptedError, ConnectionAbortedError):
                return None
            except OSError as exc:
                if exc.errno in OUT_OF_DESCRIPTORS:
                    return self._pause()
                raise
            if found is None:
                self._lonely = self._lonely + 1 if count < 2 else 0
                return None
            descriptor, peer = found
            self._on_socket(
                Accepted(descriptor) if self._bare else socket.socket(sock.family, _UNBLOCKED, sock.proto, descriptor),
                peer,
            )
            if self.closed or self.held:
                return None
        return None

    def close(self) -> None:
        """Stops listening; accepted connections live on. The path of a Unix socket goes, unless it is shared."""
        if self.closed:
            return
        self.closed = True
        self._stop()
        for sock in self.sockets:
            if sock.family == socket.AF_UNIX and not self.shared:
                unlink(sock.getsockname())
            sock.close()


def _is_one(socks: list[socket.socket]) -> bool:
    """Whether the sockets stand for one address of this machine, and not for any."""
    if len(socks) != 1 or socks[0].family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return not ip_address(socks[0].getsockname()[0].partition("%")[0]).is_unspecified
