"""Sockets that listen: bound to what was asked for, or inherited from the process that is to be succeeded."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterable
from typing import Any

from ncfast.config.values import Address
from ncfast.net.ports import refusal

OF_EVERY_IPV6 = frozenset({"::", "::1"})  # addresses that a machine has if it has IPv6 at all

Tune = Callable[[socket.socket], None]


def bind_tcp(
    infos: Iterable[tuple[Any, ...]], address: Address, backlog: int, tune: Tune | None
) -> list[socket.socket]:
    """Sockets that listen on every address of `infos` (getaddrinfo), which `address` names. Those of a family that this
    machine has not (IPv6 is off) are passed over while another is left. Raises OSError when one cannot be bound."""
    socks: list[socket.socket] = []
    lacking: OSError | None = None
    port = address.port
    try:
        for family, *_, where in dict.fromkeys(infos):
            try:
                sock = _bound(family, (where[0], port, *where[2:]))
            except OSError as exc:
                if not _lacks_family(exc, where[0]):
                    raise
                lacking = exc
                continue
            socks.append(sock)
            if tune is not None:
                tune(sock)
            sock.listen(backlog)
            port = sock.getsockname()[1]  # with port 0 both families get the same
        if lacking is not None and not socks:
            raise lacking
    except OSError as exc:
        for sock in socks:
            sock.close()
        raise OSError(exc.errno, f"cannot listen on {address}: {refusal(exc, port)}") from None
    return socks


def bind_unix(path: str, backlog: int) -> socket.socket:
    """A Unix socket that listens, and that only this user may connect to, in place of one that a process left behind.
    Raises OSError when the path cannot be bound: it is no socket, or somebody listens there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        clear(path)
        sock.bind(path)
        os.chmod(path, 0o600)  # before `listen`: until then nobody can connect
        sock.listen(backlog)
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, f"cannot listen on {path}: {os.strerror(exc.errno or 0)}") from None
    return sock


def key_of(use: str, where: str) -> str:
    """What a listening socket is known by in the next process: the key of the configuration that asks for it, and what
    is to be bound (`tcp:host:port` or `unix:path`)."""
    return f"{use} {where}"


class Inherited:
    """Sockets that the process before us listened on, by `key_of`."""

    def __init__(self) -> None:
        self._doors: list[tuple[str, list[socket.socket]]] = []

    def add(self, doors: Iterable[tuple[str, list[socket.socket]]]) -> None:
        self._doors.extend(doors)

    def take(self, use: str, where: str) -> list[socket.socket]:
        """Those for the same place, if they were asked for by another key, too; but port 0 names no place. They are
        the caller's. Empty if there are none."""
        key, anywhere = key_of(use, where), where.startswith("tcp:") and where.endswith(":0")
        others = [one for one in self._doors if one[0].partition(" ")[2] == where and not anywhere]
        for one in [*(one for one in self._doors if one[0] == key), *others][:1]:
            self._doors.remove(one)
            return one[1]
        return []

    def close(self) -> None:
        """Those that nobody has asked for."""
        for _, socks in self._doors:
            for sock in socks:
                sock.close()
        self._doors.clear()


def _bound(family: int, where: tuple[Any, ...]) -> socket.socket:
    """A TCP socket of one family, bound. Raises OSError; nothing stays open then."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock


def _lacks_family(exc: OSError, host: object) -> bool:
    """Whether the address family is missing here: from the kernel, or by a setting (net.ipv6.conf.all.disable_ipv6)."""
    return exc.errno == errno.EAFNOSUPPORT or exc.errno == errno.EADDRNOTAVAIL and host in OF_EVERY_IPV6


def clear(path: str) -> None:
    """Removes a Unix socket that nobody listens on any more. Raises OSError (EADDRINUSE) for whatever else is there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if probe.connect_ex(path) == errno.ECONNREFUSED:
                unlink(path)
                return
    raise OSError(errno.EADDRINUSE, "in use")


def unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # somebody has tidied up
        pass
