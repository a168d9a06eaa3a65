"""Who is at the other end of a Unix socket: the kernel says."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

_UCRED = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)
ROOT = 0


def pid_of(descriptor: int) -> int | None:
    """Which process has made the pair of Unix stream sockets that the descriptor is one end of; None if it is none.
    Raises OSError."""
    with socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        kind = [sock.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_DOMAIN, socket.SO_TYPE)]
        if kind != [socket.AF_UNIX, socket.SOCK_STREAM] or sock.getpeername():
            return None
        pid, _, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return int(pid)


def same_user(sock: Any) -> bool:
    """Whether the other process runs as this process's user or as root (SO_PEERCRED): as it was when it connected, or
    when it began to listen. False for sockets that are not of the Unix family."""
    try:
        if sock.family != socket.AF_UNIX:
            return False
        _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except (OSError, AttributeError):
        return False
    return uid in (ROOT, os.geteuid())
