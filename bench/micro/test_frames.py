"""The codec: one header, and a stream of small frames as a busy tunnel sees it in one read.

``python -m pytest bench/micro`` times them; the smoke test of the benches runs each once.
"""

from __future__ import annotations

from typing import Any

from ncfast import _frames
from ncfast._frames import FrameType

CID = bytes(range(16))
DATA: dict[str, Any] = {"epoch": 7, "cid": CID, "seq": 1 << 20, "ack": 1 << 21, "limit": 1 << 22}
STREAM_SIZE = 65536


def test_encode_ack(benchmark):
    frame = benchmark(_frames.encode, FrameType.M_ACK, **DATA)
    assert len(frame) == _frames.HEADER_SIZE


def test_encode_data_128_bytes(benchmark):
    frame = benchmark(_frames.encode, FrameType.M_DATA, payload=b"x" * 128, **DATA)
    assert len(frame) == _frames.HEADER_SIZE + 128


def test_decode_ack(benchmark):
    assert benchmark(_frames.decode, _frames.encode(FrameType.M_ACK, **DATA))[0] == FrameType.M_ACK


def test_decode_data_128_bytes(benchmark):
    frame = _frames.encode(FrameType.M_DATA, payload=b"x" * 128, **DATA)
    assert benchmark(_frames.decode, frame)[8] == b"x" * 128


def test_decode_64_kib_of_128_byte_frames(benchmark):
    frame = _frames.encode(FrameType.M_DATA, payload=b"x" * 128, **DATA)
    count = STREAM_SIZE // len(frame)
    stream = frame * count

    def decode_all() -> int:
        offset = frames = 0
        while (found := _frames.decode(stream, offset)) is not None:
            offset = found[9]
            frames += 1
        return frames

    assert benchmark(decode_all) == count
