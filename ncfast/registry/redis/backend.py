"""The seam to Redis: what a registry needs of a connection. redis-py fills it in production, a model of the scripts in
the simulation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ncfast.core.errors import NcfastError
from ncfast.registry.redis.scripts import Script


class BackendError(NcfastError):
    """Redis is away, or refuses. `reason` is from a fixed set of words, and the text never quotes what the client
    library says: URLs have passwords in them."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Call:
    """One script with its arguments; no script is a PING."""

    script: Script | None = None
    arguments: tuple[str | bytes, ...] = ()
    request: str = ""  # id of a claim


PING = Call()


class Backend(ABC):
    """One connection for calls, one for notices. `run` and `open` are cancelled when they take too long, and then
    `close` follows, so no reply can meet another's call."""

    connected: bool = False
    server: str = ""  # host:port or path of the one that calls go to, or went to last; without what it takes to get in
    patience: float = 1.0  # how many timeouts `open` may take: more than one if it asks others for the way first

    @abstractmethod
    async def open(self) -> None:
        """Connects for calls. Raises BackendError."""

    @abstractmethod
    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """The replies, in order, to calls that are carried out in this order; a BackendError in place of a reply that
        is an error. Raises BackendError if the connection is of no use any more."""

    @abstractmethod
    def close(self) -> None:
        """Drops the connection for calls, at once; the next `open` looks for the server again."""

    @abstractmethod
    async def listen(self, on_up: Callable[[], None], on_notice: Callable[[bytes], None]) -> None:
        """Calls `on_up` once notices are sure to come, then `on_notice` with each, until cancelled. Raises BackendError
        when the connection is lost, and it notices by itself when nobody is there any more."""

    @abstractmethod
    async def aclose(self) -> None:
        """Closes everything."""
