"""Why a port cannot be listened on, for whoever has to put it right: which key wanted it, who has it, which right is
missing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TABLES = ("net/tcp", "net/tcp6")  # proc_net_tcp in the kernel's documents: local address:port, state and inode
_LISTEN = "0A"
_FIRST_UNPRIVILEGED = "sys/net/ipv4/ip_unprivileged_port_start"
_RIGHT = (
    "a port below {first} needs CAP_NET_BIND_SERVICE (AmbientCapabilities= in a unit of systemd), or a lower "
    "net.ipv4.ip_unprivileged_port_start"
)


@contextmanager
def wanted_by(key: str) -> Iterator[None]:
    """Names the configuration's key in an OSError of what is done inside."""
    try:
        yield
    except OSError as exc:
        raise OSError(exc.errno, f"{key}: {exc.strerror}") from None


def refusal(exc: OSError, port: int, proc: Path = Path("/proc")) -> str:
    """Why the kernel did not give the TCP port."""
    text = os.strerror(exc.errno or 0)
    if exc.errno == errno.EADDRINUSE and (holders := _holders(port, proc)):
        return f"{text}, by {', '.join(holders)}"
    if exc.errno == errno.EACCES:
        with suppress(OSError, ValueError):
            first = int((proc / _FIRST_UNPRIVILEGED).read_text())
            if port < first:
                return f"{text}: {_RIGHT.format(first=first)}"
    return text


def _holders(port: int, proc: Path) -> list[str]:
    """The processes that listen on the port, as far as we may look; of one whose descriptors are not ours to see, the
    user's number. None if /proc does not tell."""
    users: dict[str, str] = {}  # by inode
    for table in _TABLES:
        with suppress(OSError):
            for line in (proc / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    users[fields[9]] = fields[7]
    if not users:
        return []
    holders: set[str] = set()
    for process in proc.glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    kind, _, inode = str(descriptor.readlink()).partition(":")
                    if kind == "socket" and users.pop(inode.strip("[]"), None) is not None:
                        name = (process / "comm").read_text().strip().encode("unicode_escape").decode()
                        holders.add(f"{name} (pid {process.name})")
    return sorted(holders) + [f"a process of user {user}" for user in sorted(set(users.values()))]
