"""The rooms of a hub on a real loop, with its doors: listeners and edge on ports of the loopback, keys in files."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mesh.hubs import run, until
from mesh.wires import LINGER_0
from support.tokens import SECRET

from hub.rooms import Rooms, listener
from ncfast.config.hub import HubConfig, Jwt, Listener
from ncfast.core.errors import Reason
from ncfast.hub.client import ClientInfo
from ncfast.hub.edge import Edge
from ncfast.hub.listener import ClientListener
from ncfast.hub.reload import Reload
from ncfast.hub.review import Review
from ncfast.hub.tokens import Tokens
from ncfast.net.seam import Net
from ncfast.net.socket import SocketEnd
from ncfast.net.throttle import Throttle

__all__ = ["Doors", "Signal", "listener", "port", "cut", "dial", "doors", "exchange", "key", "run", "until"]


def key(folder: Path, secret: bytes = SECRET, name: str = "key") -> Jwt:
    """What the configuration says of a secret that is written into a file."""
    file = folder / name
    file.write_bytes(secret)
    return Jwt.model_validate({"key_file": str(file)})


class WatchedNet(Net):
    """Knows with what tasks have failed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.failed: list[BaseException] = []

    def _done(self, task: asyncio.Task[Any]) -> None:
        super()._done(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.failed.append(exc)


class Doors(Rooms):
    """Clients that come in wait for an agent, as after a start."""

    def __init__(self, folder: Path, mode: str = "off", **sections: Any) -> None:
        net = WatchedNet(asyncio.get_running_loop(), rng=random.Random(1))
        super().__init__(mode, net=net, **({"edge": {"bind": "127.0.0.1:0"}} | sections))
        self.ground.started_at = self.ground.clock() + 3600.0  # new all the time
        self.jwt = key(folder)
        self.tokens = Tokens(self.jwt, net, self.wall)
        self.edge = Edge(self.ground, self.ways, self.sessions, self.tokens, self.claims)
        self.review = Review(self.ground, self.sessions, self.tokens, self.lockout)
        self.tokens.on_change = self.review.begin
        self.opens = Throttle(self.ground.config.limits.opens_per_source_per_sec, net.clock)
        self.clients: list[ClientInfo] = []
        self.listeners: dict[str, ClientListener] = {}
        self.reload = Reload(
            self.ground, self.sessions, self.tokens, self.cluster, self.edge, self.listeners, self.make_listener
        )

    def make_listener(self, config: Listener) -> ClientListener:
        return ClientListener(self.ground, config, self.opens, self.let_in)

    def let_in(self, end: SocketEnd, info: ClientInfo) -> None:
        self.clients.append(info)
        self.router.client_ready(end, info)

    async def listen(self, config: Listener) -> ClientListener:
        listener = self.listeners[config.name] = self.make_listener(config)
        await listener.open()
        return listener

    async def apply(self, config: HubConfig, jwt: Jwt | None = None) -> None:
        """A reload."""
        await self.reload.apply(config, jwt or self.jwt)

    def received(self) -> int:
        """Bytes that clients have sent."""
        return self.ground.context.bytes_read

    async def close(self) -> None:
        """Everything ends, no connection is left, and no task has failed."""
        for one in self.listeners.values():
            one.close()
        self.edge.close()
        for flow in list(self.ground.flows.values()):
            flow.reset(Reason.DRAINING)
        for session in self.sessions:
            session.link.fail(Reason.GOING_AWAY)
        await self.cluster.close()
        await self.tokens.aclose()
        await until(lambda: self.net.sockets == 0, "no connection is left")
        await self.net.cancel_all()
        assert not self.net.failed


@asynccontextmanager
async def doors(folder: Path, mode: str = "off", **sections: Any) -> AsyncIterator[Doors]:
    hub = Doors(folder, mode, **sections)
    try:
        yield hub
    finally:
        await hub.close()


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


async def dial(address: str, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port(address), **options)


class Signal:
    """Something is `asked`, and goes on at the event."""

    def __init__(self) -> None:
        self.asked = False
        self.event = asyncio.Event()


def cut(writer: asyncio.StreamWriter) -> None:
    """Resets the connection."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    writer.transport.abort()


async def exchange(address: str, data: bytes, *, eof: bool = False) -> bytes:
    """Sends bytes, returns all that comes until the far end closes, or resets."""
    reader, writer = await dial(address)
    try:
        writer.write(data)
        if eof:
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
