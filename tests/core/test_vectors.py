"""The published examples of frames, over the codec and over the reference: whole, byte by byte, with more behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core import reference
from ncfast import _frames
from ncfast._frames import FrameType

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "frames.json").read_text())
FRAMES, MALFORMED = VECTORS["frames"], VECTORS["malformed"]


def named(cases):
    return [pytest.param(case, id=case["name"].partition(":")[0]) for case in cases]


@pytest.fixture(params=[_frames, reference], ids=["codec", "reference"])
def codec(request):
    return request.param


def fields(case):
    return (
        case["type"],
        case["flags"],
        case["code"],
        case["epoch"],
        bytes.fromhex(case["cid"]),
        case["seq"],
        case["ack"],
        case["limit"],
        bytes.fromhex(case["payload"]),
    )


@pytest.mark.parametrize("case", named(FRAMES))
class TestFrames:
    def test_encode(self, codec, case):
        type_, flags, code, epoch, cid, seq, ack, limit, payload = fields(case)
        wire = codec.encode(
            type_, flags=flags, code=code, epoch=epoch, cid=cid, seq=seq, ack=ack, limit=limit, payload=payload
        )
        assert wire.hex() == case["hex"]

    def test_decode_whole(self, codec, case):
        wire = bytes.fromhex(case["hex"])
        assert codec.decode(wire) == (*fields(case), len(wire))

    def test_decode_byte_by_byte(self, codec, case):
        wire = bytes.fromhex(case["hex"])
        for have in range(len(wire)):
            assert codec.decode(wire[:have]) is None
        assert codec.decode(wire) is not None

    def test_decode_with_bytes_around(self, codec, case):
        wire = bytes.fromhex(case["hex"])
        assert codec.decode(b"before" + wire + b"behind", 6) == (*fields(case), 6 + len(wire))


@pytest.mark.parametrize("case", named(MALFORMED))
class TestMalformed:
    def test_refused_when_the_header_is_there_and_not_before(self, codec, case):
        wire = bytes.fromhex(case["hex"])
        for have in range(reference.HEADER_SIZE):
            assert codec.decode(wire[:have]) is None
        for have in range(reference.HEADER_SIZE, len(wire) + 1):
            with pytest.raises(codec.FrameError):
                codec.decode(wire[:have])

    def test_refused_with_bytes_behind(self, codec, case):
        with pytest.raises(codec.FrameError):
            codec.decode(bytes.fromhex(case["hex"]) + bytes(100_000))

    def test_not_encoded_either(self, codec, case):
        type_, flags, code, length, epoch, cid, seq, ack, limit = reference.HEADER.unpack_from(
            bytes.fromhex(case["hex"])
        )
        with pytest.raises(codec.FrameError):
            codec.encode(
                type_,
                flags=flags,
                code=code,
                epoch=epoch,
                cid=cid,
                seq=seq,
                ack=ack,
                limit=limit,
                payload=bytes(min(length, 65537)),
            )


def test_every_type_has_an_example():
    assert {case["type"] for case in FRAMES} >= {int(one) for one in FrameType}
