"""Where the master is: asked of Redis Sentinels, one after the other, over a connection that is kept.

Why not by redis-py's: docs/decisions/0020-sentinel.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from redis import exceptions as errors
from redis.asyncio.connection import AbstractConnection

from ncfast.registry.redis.backend import BackendError

Place = tuple[str, int]  # host and port
Connect = Callable[[Place, bool], Awaitable[AbstractConnection]]  # where, and whether to give user and password


class Sentinels:
    """`timeout` (seconds) is for one Sentinel; `drop` closes a connection at once."""

    def __init__(
        self,
        places: Sequence[Place],
        service: str,
        timeout: float,
        connect: Connect,
        drop: Callable[[AbstractConnection], None],
    ) -> None:
        self._places = list(places)  # the one that answered last comes first
        self._service = service
        self._timeout = timeout
        self._connect = connect
        self._drop = drop
        self._connection: AbstractConnection | None = None
        self._asking = asyncio.Lock()

    async def master(self) -> Place:
        """Raises BackendError if none of them knows."""
        async with self._asking:
            for place in list(self._places):
                try:
                    async with asyncio.timeout(self._timeout):
                        master = await self._ask(place)
                    if master is not None:
                        return master
                except (
                    BackendError,
                    errors.RedisError,
                    OSError,
                    RuntimeError,
                    ValueError,
                ):  # TimeoutError is an OSError
                    pass
                except BaseException:
                    self.close()
                    raise
                self.close()
                self._places = [*self._places[1:], place]
        raise BackendError("no_master")

    async def _ask(self, place: Place) -> Place | None:
        if self._connection is not None:
            return await self._question(self._connection)
        try:
            self._connection = await self._connect(place, False)
            return await self._question(self._connection)
        except errors.AuthenticationError:  # it wants a password
            self.close()
            self._connection = await self._connect(place, True)
            return await self._question(self._connection)

    async def _question(self, connection: AbstractConnection) -> Place | None:
        await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service, check_health=False)
        answer = await connection.read_response()
        return (answer[0].decode(), int(answer[1])) if answer else None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._drop(connection)
