"""Binary messages through our carrier and through `websockets`, whose Sans-I/O objects we use for the rest.

Ours is timed with the link above it (frame header read or written, frame of an unknown type skipped).
"""

from __future__ import annotations

import time

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from bench.micro.ends import End
from ncfast import _frames
from ncfast._frames import FrameType

COUNT = 100  # messages in a call
SIZES = [128, 16384]
UNKNOWN = 200  # a frame type that nobody has; with the ignorable flag the link skips it


def frame(size: int) -> bytes:
    return _frames.encode(UNKNOWN, flags=_frames.IGNORABLE, payload=b"x" * (size - _frames.HEADER_SIZE))


def masked(payload: bytes) -> bytes:
    """As the client sends it."""
    return Frame(Opcode.BINARY, payload).serialize(mask=True)


@pytest.mark.parametrize("size", SIZES)
def test_receive_masked_ours(benchmark, size):
    hub = End(client=False)
    message = masked(frame(size))

    def receive() -> None:
        for _ in range(COUNT):
            hub.arrive(message)
        hub.link.tick(time.monotonic(), 1e9, 1e9, 1e9)  # or so many frames without effect are a flood

    benchmark(receive)
    assert not hub.link.closed and hub.link.bytes_in % size == 0


@pytest.mark.parametrize("size", SIZES)
def test_receive_masked_websockets(benchmark, size):
    protocol = Protocol(Side.SERVER, max_size=None)
    message = masked(frame(size))

    def receive() -> list:
        for _ in range(COUNT):
            protocol.receive_data(message)
            events = protocol.events_received()
        return events

    assert len(benchmark(receive)[0].data) == size


@pytest.mark.parametrize("size", SIZES)
def test_send_masked_ours(benchmark, size):
    agent = End(client=True)
    payload = b"x" * (size - _frames.HEADER_SIZE)

    def send() -> None:
        agent.wire.clear()
        for _ in range(COUNT):
            agent.link.send(FrameType.AUTH, payload)

    benchmark(send)
    assert len(agent.wire) == COUNT


@pytest.mark.parametrize("size", SIZES)
def test_send_masked_websockets(benchmark, size):
    protocol = Protocol(Side.CLIENT)
    payload = frame(size)

    def send() -> list:
        for _ in range(COUNT):
            protocol.send_binary(payload)
            sent = protocol.data_to_send()
        return sent

    assert benchmark(send)
