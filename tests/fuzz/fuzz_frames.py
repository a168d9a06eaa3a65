"""Frames: whatever arrives is decoded, waited for or refused; what is decoded encodes to the same bytes.

The codec is C and shows libFuzzer no coverage: its guide is this file, which makes nearly right headers.
"""

import struct
import sys

import atheris

from ncfast._frames import HEADER_SIZE, MAX_DATA, FrameError, decode, encode

HEADER = struct.Struct("!BBHIQ16sQQQ")
assert HEADER.size == HEADER_SIZE


@atheris.instrument_func
def stream(source: atheris.FuzzedDataProvider) -> bytes:
    pieces = []
    while source.remaining_bytes() > HEADER_SIZE and source.ConsumeBool():
        payload = source.ConsumeBytes(source.ConsumeIntInRange(0, 64))
        length = len(payload) if source.ConsumeBool() else source.ConsumeIntInRange(0, MAX_DATA + 1)
        numbers = [source.ConsumeUInt(8) >> source.ConsumeIntInRange(0, 63) for _ in range(4)]
        type_, flags = source.ConsumeIntInRange(0, 19), source.ConsumeIntInRange(0, 2)
        cid = source.ConsumeBytes(16).ljust(16, b"\0")
        code = source.ConsumeUInt(2) if source.ConsumeBool() else 0
        pieces.append(HEADER.pack(type_, flags, code, length, numbers[0], cid, *numbers[1:]) + payload)
    return b"".join(pieces) + source.ConsumeBytes(sys.maxsize)


@atheris.instrument_func
def one_input(data: bytes) -> None:
    wire = stream(atheris.FuzzedDataProvider(data))
    at = 0
    while True:
        try:
            frame = decode(wire, at)
        except FrameError:
            return
        if frame is None:
            return
        type_, flags, code, epoch, cid, seq, ack, limit, payload, end = frame
        assert at < end <= len(wire)
        again = encode(
            type_,
            flags=flags,
            code=code,
            epoch=epoch,
            cid=cid,
            seq=seq,
            ack=ack,
            limit=limit,
            payload=payload,
        )
        assert again == wire[at:end], "a frame has two spellings"
        at = end


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
