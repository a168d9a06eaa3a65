"""A hub's and an agent's end of one tunnel and one flow in one thread, with memory where the kernel would be.

What this leaves out (system calls, transports, the event loop) is most of the time of a real round trip; what
it keeps is all that the product itself does for each byte.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from websockets.protocol import Protocol, Side

from ncfast.core.context import FlowContext
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.link import Link
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.socket import SocketEnd
from ncfast.net.stream import Stream
from ncfast.net.websocket import WebSocketCarrier

CID = bytes(range(16))
SECRET = bytes(16)
MIB = 1 << 20


class Memory(Stream):
    """A transport that gives every write to ``sink`` at once."""

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink

    def write(self, data) -> None:
        self._sink(data)

    def writelines(self, pieces) -> None:
        for piece in pieces:
            self.write(piece)

    def get_extra_info(self, name: str, default=None) -> None:
        """There is no socket."""

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class End:
    """One end of the tunnel. ``received`` counts the bytes that its socket was given."""

    def __init__(self, client: bool) -> None:
        us: Any = self  # has only what these benchmarks make link, flow and socket tell
        self.received = 0
        self.wire: deque[bytes] = deque()  # what this end has sent
        self.turns: deque[Callable[[], object]] = deque()
        self.context = FlowContext(time.monotonic)
        self.context.owner = us
        side = Side.CLIENT if client else Side.SERVER
        wire = Memory(lambda data: self.wire.append(bytes(data)))
        self.carrier = WebSocketCarrier(
            Protocol(side), wire, self.never, ReceiveBuffer(), client=client, max_message=MIB, entropy=os.urandom
        )
        self.link = Link(
            us, self.carrier, self.context, self.turns.append, self.never, max_inflight=8 * MIB, queue_depth=1000
        )
        self.carrier.start(self.link)
        self.link.establish(1)
        codes = (Reason.TARGET_RESET, Reason.TARGET_LOST) if client else (Reason.CLIENT_RESET, Reason.CLIENT_LOST)
        self.socket = SocketEnd(self.context, us, self.never, *codes)
        self.socket.connection_made(Memory(self._count))

    def _count(self, data: bytes) -> None:
        self.received += len(data)

    def read(self, data: bytes) -> None:
        """``data`` has come from this end's socket; at most what the flow has room for."""
        view = self.socket.get_buffer(-1)
        view[: len(data)] = data
        self.socket.buffer_updated(len(data))

    def arrive(self, data: bytes) -> None:
        """``data`` has come over the tunnel."""
        self.carrier.get_buffer(-1)[: len(data)] = data
        self.carrier.buffer_updated(len(data))

    def never(self, delay: float, callback, *arguments) -> None:
        """Timers do not run: acknowledgements ride on data, or leave at half a window."""

    # what link, flow and socket tell their owner

    def socket_ready(self, end: SocketEnd) -> None:
        pass

    def flow_opened(self, flow: Flow) -> None:
        pass

    def _on_frame__open(self, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        flow = Flow(self.context, cid, SECRET, None, self, limit)
        flow.attach(self.link, resumed=True)
        self.socket.carry(flow)
        flow.accept()


class Tunnel:
    """Both ends with one open flow between them."""

    def __init__(self) -> None:
        self.hub = End(client=False)
        self.agent = End(client=True)
        flow = Flow(self.hub.context, CID, SECRET, b"open", self.hub)
        self.hub.socket.carry(flow)
        flow.attach(self.hub.link, resumed=True)
        self.settle()

    def settle(self) -> None:
        """Moves what is on the wire, and ends the turn of both loops, until nothing is left to do."""
        hub, agent = self.hub, self.agent
        while hub.wire or agent.wire or hub.turns or agent.turns:
            while hub.wire:
                agent.arrive(hub.wire.popleft())
            while agent.wire:
                hub.arrive(agent.wire.popleft())
            while hub.turns:
                hub.turns.popleft()()
            while agent.turns:
                agent.turns.popleft()()
