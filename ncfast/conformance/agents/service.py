"""The service beside the agent: it takes connects, holds them back or refuses them, as the script says."""

from __future__ import annotations

import asyncio
import socket

from ncfast.conformance.farside import FarSide, Stream


class Service:
    """Listens on a loopback port of the kernel's choice. Connections wait in the kernel until the script takes them."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(16)
        self.address: tuple[str, int] = self._socket.getsockname()
        self._filler: socket.socket | None = None
        self._targets: list[FarSide] = []

    def hold(self) -> None:
        """The agent's connects stay unanswered: the queue of one place is taken, and Linux drops further SYNs."""
        self._socket.listen(0)
        self._filler = socket.socket()
        self._filler.connect(self.address)

    async def release(self) -> None:
        """They are answered, at the next SYN that is sent again."""
        self._socket.listen(16)
        taken, _ = await asyncio.get_running_loop().sock_accept(self._socket)
        taken.close()
        if self._filler is not None:
            self._filler.close()

    def refuse(self) -> None:
        """The agent's connects are refused from now on; the port stays ours, or somebody else might answer there."""
        self._socket.close()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(self.address)

    async def accept(self, ours: Stream, own: Stream) -> FarSide:
        """The agent's next connection."""
        taken, _ = await asyncio.get_running_loop().sock_accept(self._socket)
        target = await FarSide.on(taken, "service", ours, own)
        self._targets.append(target)
        return target

    def close(self) -> None:
        """Ends everything."""
        for target in self._targets:
            target.close()
        if self._filler is not None:
            self._filler.close()
        self._socket.close()
