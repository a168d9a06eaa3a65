"""The frame codec once more, slow and plain, written from the specification: what `ncfast._frames` is compared with."""

from __future__ import annotations

import struct

HEADER = struct.Struct("!BBHIQ16sQQQ")
HEADER_SIZE = HEADER.size
IGNORABLE = 1
MAX_DATA = 65536
MAX_CONTROL = 16384
OFFSET_BOUND = 1 << 62

TYPES = {
    "HELLO": 1,
    "HELLO_ACK": 2,
    "M_OPEN": 3,
    "M_OPEN_ACK": 4,
    "M_DATA": 5,
    "M_ACK": 6,
    "M_FIN": 7,
    "M_RST": 8,
    "M_RESUME": 9,
    "M_RESUME_ACK": 10,
    "PING": 11,
    "PONG": 12,
    "GOAWAY": 13,
    "AUTH": 14,
    "ANNOUNCE": 15,
    "M_DETACH": 16,
    "M_GAP": 17,
    "MOVE": 18,
}
EMPTY = {
    TYPES[name]
    for name in ("M_OPEN_ACK", "M_ACK", "M_FIN", "M_RST", "M_RESUME_ACK", "PING", "PONG", "GOAWAY", "M_DETACH", "M_GAP")
}
WITH_CODE = {TYPES[name] for name in ("M_RST", "GOAWAY", "AUTH", "M_DETACH")}
SECRET_SIZE = 16


class FrameError(ValueError):
    """As the codec's own."""


def check(type: int, flags: int, code: int, length: int, seq: int, ack: int, limit: int) -> None:
    """Raises FrameError for a header that no receiver may accept."""
    if length > (MAX_DATA if type == TYPES["M_DATA"] else MAX_CONTROL):
        raise FrameError("length")
    if flags & ~IGNORABLE:
        raise FrameError("flags")
    if type not in TYPES.values():
        if not flags & IGNORABLE:
            raise FrameError("type")
        return
    if max(seq, ack, limit) >= OFFSET_BOUND:
        raise FrameError("offset")
    if type == TYPES["M_DATA"] and length == 0:
        raise FrameError("empty data")
    if type == TYPES["M_DATA"] and seq + length > OFFSET_BOUND:
        raise FrameError("offset")
    if type == TYPES["M_RESUME"] and length < SECRET_SIZE:
        raise FrameError("secret")
    if type in EMPTY and length:
        raise FrameError("payload")
    if code and type not in WITH_CODE:
        raise FrameError("code")


def encode(
    type: int,
    *,
    flags: int = 0,
    code: int = 0,
    epoch: int = 0,
    cid: bytes = bytes(16),
    seq: int = 0,
    ack: int = 0,
    limit: int = 0,
    payload: bytes = b"",
) -> bytes:
    """One frame."""
    check(type, flags, code, len(payload), seq, ack, limit)
    return HEADER.pack(type, flags, code, len(payload), epoch, cid, seq, ack, limit) + payload


def decode(data: bytes, offset: int = 0):
    """(type, flags, code, epoch, cid, seq, ack, limit, payload, end), or None if more is needed."""
    if len(data) - offset < HEADER_SIZE:
        return None
    type, flags, code, length, epoch, cid, seq, ack, limit = HEADER.unpack_from(data, offset)
    check(type, flags, code, length, seq, ack, limit)
    end = offset + HEADER_SIZE + length
    if len(data) < end:
        return None
    return type, flags, code, epoch, cid, seq, ack, limit, bytes(data[offset + HEADER_SIZE : end]), end
