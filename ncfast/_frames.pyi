"""Wire format: frame codec, frame memory, dedup ring."""

from enum import IntEnum
from typing import Final

from typing_extensions import Buffer

HEADER_SIZE: Final = 56  # bytes
IGNORABLE: Final = 1  # flag
MAX_DATA: Final = 65536  # payload bytes of M_DATA
MAX_CONTROL: Final = 16384  # payload bytes of every other frame
CID_SIZE: Final = 16
SECRET_SIZE: Final = 16
HEADROOM: Final = 72  # bytes in front of a payload in memory

class FrameType(IntEnum):
    HELLO = 1
    HELLO_ACK = 2
    M_OPEN = 3
    M_OPEN_ACK = 4
    M_DATA = 5
    M_ACK = 6
    M_FIN = 7
    M_RST = 8
    M_RESUME = 9
    M_RESUME_ACK = 10
    PING = 11
    PONG = 12
    GOAWAY = 13
    AUTH = 14
    ANNOUNCE = 15
    M_DETACH = 16
    M_GAP = 17
    MOVE = 18

class FrameError(ValueError):
    """Malformed frame: whoever sent it is at fault, and its link ends."""

def encode(
    type: int,
    *,
    flags: int = 0,
    code: int = 0,
    epoch: int = 0,
    cid: bytes = ...,
    seq: int = 0,
    ack: int = 0,
    limit: int = 0,
    payload: bytes = b"",
) -> bytes:
    """One frame. Raises FrameError for what `decode` would refuse."""

def decode(data: Buffer, offset: int = 0) -> tuple[int, int, int, int, bytes, int, int, int, bytes, int] | None:
    """(type, flags, code, epoch, cid, seq, ack, limit, payload, end) of the frame at `offset`, or None if more is
    needed.

    Raises FrameError as soon as the header shows that the frame is malformed.
    """

class Chunk:
    """Bytes of a flow with room for their header; for Cython only."""

class SegmentPool:
    """Bounded free list of the memory that sockets are read into."""

    segment_size: int
    in_use: int
    held: int

    def __init__(self, max_free: int = 256) -> None: ...
    @property
    def free_count(self) -> int: ...

def siphash13(k0: int, k1: int, data: bytes) -> int:
    """SipHash-1-3 of 16 bytes under the key k0, k1, as the dedup ring's index uses it."""

class DedupRing:
    """Which flows ended lately, and how far they had got; the oldest is forgotten first."""

    capacity: int
    used: int
    evicted: int

    def __init__(self, capacity: int = 16384, seed: int = 0) -> None: ...
    def __len__(self) -> int: ...
    def record(self, cid: bytes, seq: int) -> None:
        """Remembers that flow `cid` ended having received up to `seq`."""

    def pack(self) -> bytes:
        """All entries, the oldest first, for another ring."""

    def take(self, packed: bytes) -> None:
        """Records what another ring has packed. Raises ValueError for what is no row of entries."""

    def longest_run(self) -> int:
        """The most index slots in a row that are taken: what the longest search looks at."""

    def last(self, cid: bytes) -> int | None:
        """The sequence recorded for `cid`, or None."""
