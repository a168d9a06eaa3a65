"""The service behind an agent whose every move a test decides; run as a process, asked over its pipes.

Two ports: on ``port`` a client's first line is JSON that says what this end shall do with the flow; on
``armed_port`` this end acts at once, without a byte from the client, on the next order from the pipe.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
from typing import Any

from support.script import End, Gates

BACKLOG = 4096


class PeerProgram:
    """Serves both ports and answers requests."""

    def __init__(self) -> None:
        self._gates = Gates()
        self._orders: list[dict[str, Any]] = []
        self._ends: dict[str, End] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: dict[str, tuple[socket.socket, asyncio.Task[None]]] = {}
        self._ports: dict[str, int] = {}
        self._accepted = 0

    def listen(self) -> dict[str, int]:
        """Bind both ports, on the same numbers as before if they have been bound before."""
        for name, handler in (("port", self._serve_ordered), ("armed_port", self._serve_armed)):
            if name in self._listeners:
                continue
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", self._ports.get(name, 0)))
            sock.listen(BACKLOG)
            sock.setblocking(False)
            self._ports[name] = sock.getsockname()[1]
            self._listeners[name] = (sock, asyncio.create_task(self._accept(sock, handler)))
        return self._ports

    async def unlisten(self) -> None:
        """Close both ports: a target that is down. Flows that run go on."""
        for sock, task in self._listeners.values():
            task.cancel()
            await asyncio.wait([task])
            sock.close()
        self._listeners.clear()

    async def _accept(self, listener: socket.socket, handler: Any) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._accepted += 1
            task = asyncio.create_task(handler(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve_ordered(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        head = b""
        try:
            while b"\n" not in head:
                if not (data := await loop.sock_recv(sock, 65536)):
                    break
                head += data
        except OSError:
            head = b""
        line, newline, surplus = head.partition(b"\n")
        if newline and line.startswith(b"{"):
            await self._run(sock, json.loads(line), surplus)
        else:  # not one of our clients: an attack's bytes, a probe, or a client that left
            sock.close()

    async def _serve_armed(self, sock: socket.socket) -> None:
        await self._run(sock, self._orders.pop(0), b"")

    async def _run(self, sock: socket.socket, order: dict[str, Any], surplus: bytes) -> None:
        if size := order.get("receive_buffer"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        seed = order["seed"]
        end = End(
            sock,
            send_seed=2 * seed + 1,
            receive_seed=2 * seed,
            gates=self._gates,
            digest=order.get("digest", False),
            surplus=surplus,
        )
        self._ends[order["key"]] = end
        await end.run(order["script"])

    async def answer(self, request: dict[str, Any]) -> Any:
        """Carry out one request from the test."""
        match request["do"]:
            case "arm":
                self._orders.append(request["order"])
            case "open_gate":
                self._gates[request["gate"]].set()
            case "outcome":
                end = self._ends.get(request["key"])
                return end and end.outcome.as_dict()
            case "listen":
                return self.listen()
            case "unlisten":
                await self.unlisten()
            case "counts":
                return {"accepted": self._accepted, "active": len(self._tasks)}
        return None

    async def serve(self) -> None:
        """Announce the ports, then answer requests until standard input ends."""
        loop = asyncio.get_running_loop()
        print(json.dumps(self.listen()), flush=True)
        requests = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
        while line := await requests.readline():
            print(json.dumps(await self.answer(json.loads(line))), flush=True)


def main() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    asyncio.run(PeerProgram().serve())


if __name__ == "__main__":
    main()
