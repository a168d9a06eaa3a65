"""A hub that passes frames on from one link to the other, beside a loop that copies the same bytes from one buffer to
the next.

Both have memory where the kernel would be, and pay the kernel's copy out of it. The tunnel speaks WebSocket, so upwards
each byte is unmasked; the link to the other hub is a bare stream.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from bench.micro.ends import CID, MIB, Memory
from ncfast._frames import FrameType, encode
from ncfast.core.context import FlowContext
from ncfast.core.link import Link
from ncfast.core.relay import Relay
from ncfast.net.carrier import ReceiveBuffer, TransportCarrier
from ncfast.net.raw import RawCarrier
from ncfast.net.websocket import WebSocketCarrier

READ = 4 * 65536  # bytes of payload that come in one read, about what the receive buffer holds
SHAPES = {"bulk": 65000, "16 KiB": 16384, "small": 128}


class Hub:
    """Both links and one relayed flow; ``left`` counts the bytes that were written to each."""

    def __init__(self) -> None:
        self.left = {"up": 0, "down": 0}
        self.context = FlowContext(time.monotonic)
        self.buffer = ReceiveBuffer()
        self.turns: list[Callable[[], object]] = []
        self.tunnel = self._link(
            WebSocketCarrier(
                Protocol(Side.SERVER),
                Memory(self._out("down")),
                self._never,
                self.buffer,
                client=False,
                max_message=MIB,
                entropy=os.urandom,
            )
        )
        self.mesh = self._link(RawCarrier(Memory(self._out("up")), self._never, self.buffer))
        self.tunnel.establish(1)
        us: Any = self
        Relay(CID, 1, self.tunnel, us).connect(self.mesh)

    def relay_opened(self, relay: Relay[Any]) -> None:
        """The first frame up says so."""

    def _link(self, carrier: TransportCarrier) -> Link:
        us: Any = self  # no more of a handler than relayed data needs
        link = Link(us, carrier, self.context, self.turns.append, self._never, max_inflight=8 * MIB, queue_depth=1000)
        carrier.start(link)
        return link

    def _out(self, way: str) -> Callable[[bytes], None]:
        def write(data) -> None:
            self.left[way] += len(bytes(data))  # the kernel's copy

        return write

    def _never(self, delay: float, callback, *arguments) -> None:
        """No timer is needed."""

    def arrive(self, link: Link, data: bytes) -> None:
        """``data`` has come in one read."""
        assert isinstance(link.carrier, TransportCarrier)
        link.carrier.get_buffer(-1)[: len(data)] = data
        link.carrier.buffer_updated(len(data))


def frames(size: int) -> bytes:
    count = max(1, (READ - 4096) // (size + 56))
    return b"".join(encode(FrameType.M_DATA, cid=CID, epoch=1, seq=k * size, payload=b"x" * size) for k in range(count))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["up", "down"])
def test_relay(benchmark, way, shape):
    hub = Hub()
    data = frames(SHAPES[shape])
    link, wired = (hub.tunnel, Frame(Opcode.BINARY, data).serialize(mask=True)) if way == "up" else (hub.mesh, data)
    rounds = 0

    def pass_on() -> None:
        nonlocal rounds
        hub.arrive(link, wired)
        rounds += 1

    benchmark(pass_on)
    benchmark.extra_info["bytes"] = len(data)
    assert hub.left[way] >= rounds * len(data) and hub.context.relayed == 0 and not hub.turns


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_copy(benchmark, shape):
    data = frames(SHAPES[shape])
    buffer = memoryview(bytearray(len(data)))
    left = 0

    def copy() -> None:
        nonlocal left
        buffer[:] = data
        left += len(bytes(buffer))

    benchmark(copy)
    benchmark.extra_info["bytes"] = len(data)
    assert left % len(data) == 0
