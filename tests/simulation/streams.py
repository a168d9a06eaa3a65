"""What flows carry: each byte is a function of its stream and offset, so that any piece can be checked by itself."""

from __future__ import annotations

import random

PERIOD = 1_048_573  # bytes after which a stream repeats, a prime
_PATTERN = random.Random(20).randbytes(PERIOD)
_TWICE = _PATTERN + _PATTERN
STRIDE = 7_919  # between two streams' places in the pattern


def piece(stream: int, offset: int, size: int) -> bytes:
    """`size` bytes, at most PERIOD, of a stream from `offset` on."""
    start = (stream * STRIDE + offset) % PERIOD
    return _TWICE[start : start + size]


def differs(stream: int, offset: int, data: bytes) -> int:
    """The first offset at which `data`, which claims to begin at `offset`, is not the stream's; -1 if all of it is."""
    wanted = piece(stream, offset, len(data))
    if data == wanted:
        return -1
    return offset + next(i for i, (a, b) in enumerate(zip(data, wanted, strict=True)) if a != b)
