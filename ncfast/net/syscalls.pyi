"""System calls for which the socket module makes more than one."""

from typing import Any

from ncfast.core.clock import Clock

class Monotonic(Clock):
    """`time.monotonic`."""

class Accepted:
    """An accepted connection that nobody has taken over yet: a descriptor, closed with this object."""

    def __init__(self, fd: int) -> None: ...
    def __enter__(self) -> Accepted: ...
    def __exit__(self, *exc: object) -> None: ...
    def fileno(self) -> int:
        """The descriptor, which stays this object's; -1 if it has none any more."""

    def detach(self) -> int:
        """The descriptor, which is the caller's to close from now on."""

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """Raises OSError."""

    def close(self) -> None: ...

class Dialled(Accepted):
    """A socket that connects, without blocking, to a place as `getaddrinfo` has it."""

    def __init__(self, family: int, address: tuple[Any, ...]) -> None:
        """Raises OSError."""

    def connect(self) -> int:
        """0 if the connection stands, or what the kernel says instead."""

    def error(self) -> int:
        """What has become of it: 0, or why there is no connection."""

    def fileno(self) -> int: ...

def reached_here(host: str, port: int) -> Dialled | OSError | None:
    """A connection to a port of this machine's loopback, or why there is none; None if `host` is no address there, or
    there is no answer yet."""

def accept(listening: int) -> tuple[int, Any] | None:
    """The descriptor of the next connection, which does not block, and who it is from; None if there is none yet.
    Raises OSError."""
