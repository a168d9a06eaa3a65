"""A TCP proxy that breaks what it carries, on request or after a number of bytes; run as a process."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

from support.script import RESET

CHUNK = 256 * 1024


class Pair:
    """One client connection and the connection to the upstream made for it."""

    def __init__(self, proxy: FaultProxyProgram, client: socket.socket) -> None:
        self.sockets = [client]
        self.silent = False
        self._proxy = proxy

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        upstream = socket.socket()
        self.sockets.append(upstream)
        try:
            for sock in self.sockets:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(upstream, self._proxy.upstream)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(*self.sockets))
                group.create_task(self._pump(*reversed(self.sockets)))
        except* OSError:
            self.reset()
        finally:
            for sock in self.sockets:
                sock.close()

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, CHUNK):
            await self._proxy.thawed.wait()
            if self.silent:
                await asyncio.Event().wait()
            await loop.sock_sendall(sink, data)
            self._proxy.count(len(data))
        sink.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        for sock in self.sockets:
            if sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


class FaultProxyProgram:
    """Carries connections to one upstream until told to misbehave."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.thawed = asyncio.Event()
        self.thawed.set()
        self._port = 0
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._pairs: dict[asyncio.Task[None], Pair] = {}
        self._plan: list[tuple[int, str]] = []
        self._forwarded = 0
        self._accepted = 0
        self._faults = 0

    def up(self) -> int:
        """Listen, on the same port as before."""
        if self._listener is None:
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", self._port))
            self._listener.listen(1024)
            self._listener.setblocking(False)
            self._port = self._listener.getsockname()[1]
            self._accepting = asyncio.create_task(self._accept(self._listener))
        return self._port

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            self._accepted += 1
            pair = Pair(self, sock)
            task = asyncio.create_task(pair.run())
            self._pairs[task] = pair
            task.add_done_callback(self._pairs.pop)

    def down(self) -> None:
        """Stop listening and reset every connection: the proxy's own crash."""
        if self._listener is not None and self._accepting is not None:
            self._accepting.cancel()
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        self.rst()

    def rst(self) -> None:
        """Reset both sides of every connection."""
        for task, pair in self._pairs.items():
            pair.reset()
            task.cancel()

    def silence(self) -> None:
        """Swallow whatever the present connections send, for ever; new connections work."""
        for pair in self._pairs.values():
            pair.silent = True

    def restart(self) -> None:
        """Crash, and listen again a little later."""
        self.down()
        asyncio.get_running_loop().call_later(0.2, self.up)

    def count(self, size: int) -> None:
        """Bytes went through: carry out the planned faults that are due."""
        self._forwarded += size
        while self._plan and self._forwarded >= self._plan[0][0]:
            self._fault(self._plan.pop(0)[1])

    def _fault(self, kind: str) -> None:
        self._faults += 1
        {"rst": self.rst, "silence": self.silence, "restart": self.restart, "down": self.down}[kind]()

    def answer(self, request: dict[str, Any]) -> Any:
        """Carry out one request from the test."""
        match request["do"]:
            case "fault":
                self._fault(request["kind"])
            case "plan":
                self._plan = [(self._forwarded + after, kind) for after, kind in request["plan"]]
            case "up":
                self.up()
            case "freeze":
                self.thawed.clear()
            case "thaw":
                self.thawed.set()
        return {
            "port": self._port,
            "forwarded": self._forwarded,
            "accepted": self._accepted,
            "active": len(self._pairs),
            "faults": self._faults,
        }

    async def serve(self) -> None:
        """Announce the port, then answer requests until standard input ends."""
        loop = asyncio.get_running_loop()
        print(json.dumps({"port": self.up()}), flush=True)
        requests = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
        while line := await requests.readline():
            print(json.dumps(self.answer(json.loads(line))), flush=True)


async def main(host: str, port: str) -> None:
    await FaultProxyProgram((host, int(port))).serve()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
